"""Run by torchrun: the example as it is, once for each set of flags, and the README's loop with its student in DDP."""

from __future__ import annotations

import runpy
import sys
import warnings
from functools import cache
from pathlib import Path

import torch
import torch.distributed as dist

import kdlosses
from tests.integrations import readme_loop
from tests.integrations.scripts import EXAMPLES

STEPS = 6
RUNS = {
    "unclipped": ("--clip", "1000"),
    "clipped": (),
    "bf16": ("--amp", "bf16"),
    "fp16": ("--amp", "fp16"),
    "bf16 compiled": ("--amp", "bf16", "--compile", "eager"),
}
README = {"ddp": ("ddp",), "ddp and autocast": ("ddp", "autocast"), "ddp and scaler": ("ddp", "scaler")}


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    # One group for all runs, made by the first: torchrun's processes can meet but once.
    leave, dist.destroy_process_group = dist.destroy_process_group, lambda: None
    dist.init_process_group = cache(dist.init_process_group)
    for name, flags in RUNS.items():
        sys.argv = ["plain_loop.py", "--steps", str(STEPS), "--checkpoint", str(folder / f"{name}.pt"), *flags]
        runpy.run_path(str(EXAMPLES / "plain_loop.py"), run_name="__main__")
    rank, size = dist.get_rank(), dist.get_world_size()
    states = {}
    for name, changes in README.items():
        torch.manual_seed(0)
        states[name] = readme_loop.run(*changes, rank=rank, size=size)
    torch.save(states, folder / f"readme-{rank}.pt")
    leave()


if __name__ == "__main__":
    warnings.simplefilter("error", kdlosses.UntrainedParametersWarning)
    main(Path(sys.argv[1]))
