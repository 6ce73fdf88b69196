"""The memory that a trainer needs."""

from __future__ import annotations

import resource
import sys

import torch


def peak_bytes(device: str) -> int:
    """The most memory so far: what torch had allocated on the GPU, or the process's resident size on a CPU."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
