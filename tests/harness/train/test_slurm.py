"""The SLURM script, with stand-ins for SLURM's commands: what it starts, and when it queues itself again."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "docs" / "slurm.sh"


@pytest.fixture
def submit(tmp_path):
    """Run the script where `srun` does this; returns its exit code and the calls of SLURM's commands."""

    def run(srun: str, *arguments: str) -> tuple[int, list[str]]:
        told = tmp_path / "told"
        for name, does in (("srun", srun), ("scontrol", "[ $1 = show ] && printf 'first\\nsecond\\n'; true")):
            command = tmp_path / "bin" / name
            command.parent.mkdir(exist_ok=True)
            command.write_text(f'#!/bin/bash\necho "{name} $*" >> "{told}"\n{does}\n')
            command.chmod(0o755)
        slurm = {"JOB_ID": "12345678", "JOB_NODELIST": "first,second", "NNODES": "2", "GPUS_ON_NODE": "8"}
        environment = {f"SLURM_{name}": value for name, value in slurm.items()}
        path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", str(SCRIPT), *arguments], env={"PATH": path, "RUN": str(tmp_path / "run"), **environment}
        )
        return done.returncode, told.read_text().splitlines()

    (tmp_path / "run").mkdir()
    return run


def test_it_starts_torchrun_on_all_machines_and_ends_with_its_code(submit, tmp_path):
    code, told = submit("exit 3", "my recipe.yaml", "--set", "seed=1")
    assert code == 3
    (started,) = [line for line in told if line.startswith("srun")]
    assert "torchrun --nnodes 2 --nproc-per-node 8 --rdzv-id 12345678" in started
    assert "--rdzv-endpoint first:25678 -m harness train my recipe.yaml --set seed=1" in started
    assert started.endswith(f"--out {tmp_path / 'run'} --resume")
    assert not any("requeue" in line for line in told)


def test_a_run_that_sigterm_ended_is_queued_again(submit, tmp_path):
    code, told = submit(f"touch {tmp_path / 'run' / 'stopped'}; exit 1", "recipe.yaml")
    assert (code, told[-1]) == (1, "scontrol requeue 12345678")


def test_an_error_after_that_is_not_queued_again(submit, tmp_path):
    """A changed recipe, say, is refused before the run touches its folder: the job would come back for ever."""
    (tmp_path / "run" / "stopped").write_text("SIGTERM came")
    code, told = submit("exit 2", "recipe.yaml")
    assert code == 2
    assert not any("requeue" in line for line in told)
