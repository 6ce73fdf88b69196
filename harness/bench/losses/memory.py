"""Peak memory of one case above its inputs, what memory there is, and how running out of it looks."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from harness.bench.losses.implementations import Setup
from harness.bench.losses.livebytes import LiveBytes
from harness.container import memory_left

# Beyond this share of what is free the machine swaps, or ends the process without a word.
USABLE = 0.85


@dataclass(frozen=True)
class Peaks:
    """Bytes above the inputs: the peak of the forward alone, the peak of both, and the loss's value."""

    forward: int
    both: int
    value: Tensor


def measure_peaks(setup: Setup, device: str, after: Callable[[], object] = lambda: None) -> Peaks:
    """Run forward and backward once; ``after`` is called after each of the two.

    CUDA: the allocator's peak; run the case once before, so that workspaces are there. CPU: live tensors, counted.
    """
    return _allocated(setup, after) if device == "cuda" else count_live(setup, after)


def count_live(setup: Setup, after: Callable[[], object] = lambda: None) -> Peaks:
    """Peaks of live tensors."""
    with LiveBytes() as counter:
        loss = setup.forward()
        after()
        forward = counter.peak
        loss.backward()
        after()
    return Peaks(forward, counter.peak, loss.detach())


def _allocated(setup: Setup, after: Callable[[], object]) -> Peaks:
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    loss = setup.forward()
    after()
    forward = torch.cuda.max_memory_allocated() - before
    loss.backward()
    after()
    both = torch.cuda.max_memory_allocated() - before
    return Peaks(forward, both, loss.detach())


def available_bytes(device: str) -> int:
    """What can be allocated now: free and cached on a GPU; on the CPU what the system or the container still gives."""
    if device == "cuda":
        cached = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
        return int(torch.cuda.mem_get_info()[0]) + cached
    left = memory_left()
    return _system_bytes() if left is None else min(_system_bytes(), left)


def _system_bytes() -> int:
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory ran out; torch's CPU allocator has no exception of its own for it."""
    said = str(error)
    cpu = isinstance(error, RuntimeError) and ("can't allocate memory" in said or "not enough memory" in said)
    return cpu or isinstance(error, torch.OutOfMemoryError | MemoryError)


def release(device: str) -> None:
    """Give back what a case leaves behind, so that the next one finds the memory it would find alone."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
