#!/usr/bin/env bash
# A ViT-S/16 from a ViT-B/16, with the paper's settings: 8 GPUs x 128 pairs, CC3M and CC12M as webdataset shards.
#
#   examples/open_clip/run.sh --train-data '/data/cc12m/{00000..01242}.tar' --train-num-samples 9970000
#
# Whatever stands after it goes to open_clip's trainer and wins over what is said here. GPUS=1 is one process.
set -euo pipefail

# The -- keeps torchrun from taking --logs for its own --logs-specs.
exec torchrun --nproc-per-node "${GPUS:-8}" -m -- kdlosses.integrations.open_clip_train \
    --kd-config "$(dirname "$0")/clip-kd.yaml" \
    --model ViT-S-16 \
    --distill-model ViT-B-16 \
    --distill-pretrained laion400m_e32 \
    --dataset-type webdataset \
    --batch-size 128 \
    --epochs 32 \
    --lr 1e-3 \
    --wd 0.1 \
    --warmup 10000 \
    --precision amp \
    --resume latest \
    --name vit-s-16-clip-kd \
    "$@"
