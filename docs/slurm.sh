#!/bin/bash
# One run on several machines, a GPU for each process, requeued and resumed when the queue takes the machines back.
#   RUN=runs/mine sbatch docs/slurm.sh recipe.yaml [more arguments of clipkd train]
#SBATCH --job-name=clipkd
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
# SIGTERM to the processes themselves, two minutes before the end: each finishes its step, saves and exits with 75.
#SBATCH --signal=TERM@120

set -u
run=${RUN:?the folder of the run, on a file system that all machines share: RUN=runs/mine sbatch ...}
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
# Jobs that share a machine must not meet at one port.
port=$((20000 + SLURM_JOB_ID % 10000))
# What an earlier job has left: an error before this run looks at its folder must not requeue it for ever.
rm -f "$run/stopped"

# srun passes the signal on to torchrun, which passes it on to its processes.
srun torchrun \
    --nnodes "$SLURM_NNODES" --nproc-per-node "$SLURM_GPUS_ON_NODE" \
    --rdzv-id "$SLURM_JOB_ID" --rdzv-backend c10d --rdzv-endpoint "$head:$port" \
    -m harness train "$@" --out "$run" --resume
code=$?

# torchrun reports 1 whatever ended its processes. This file is left by a run that SIGTERM has ended, and by no error.
if [ -e "$run/stopped" ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
