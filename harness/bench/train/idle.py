"""Idle time of the device during a step."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile


class CpuMeter:
    """The processor time that this process uses, against that of its threads on the clock."""

    def __init__(self) -> None:
        self._wall = self._busy = 0.0

    def add(self, run: Callable[[], None]) -> None:
        """Run it and take its times."""
        wall, busy = time.perf_counter(), time.process_time()
        run()
        self._wall += time.perf_counter() - wall
        self._busy += time.process_time() - busy

    def idle(self) -> float:
        """The share of the threads' time without work, 0 to 1.

        A thread that spins while it waits counts as busy, one that waits for a busy processor as idle.
        """
        return max(0.0, 1 - self._busy / (self._wall * torch.get_num_threads()))


def cuda_idle(run: Callable[[], None], milliseconds: float) -> float:
    """The share of a GPU's time without a kernel, 0 to 1.

    Args:
        run: some steps. They are profiled, which slows the CPU down but not the kernels; only those are read.
        milliseconds: how long as many steps take without a profiler.
    """
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        run()
        torch.cuda.synchronize()
    kernels = [
        (event.time_range.start, event.time_range.end)
        for event in profiler.events()
        if event.device_type == DeviceType.CUDA and not getattr(event, "is_user_annotation", False)
    ]
    return max(0.0, 1 - 1e-3 * union(kernels) / milliseconds)


def union(spans: list[tuple[float, float]]) -> float:
    """The length that spans cover together."""
    covered, end = 0.0, float("-inf")
    for start, stop in sorted(spans):
        covered += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return covered
