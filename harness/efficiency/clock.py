"""Timing of a call: the median of repeats after a warm-up, by CUDA events on GPUs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

WARM_UP = 3
REPEATS = 20
SECONDS = 10.0  # no more repeats after that, but at least LEAST
LEAST = 3


def median_seconds(call: Callable[[], Any], device: torch.device, repeats: int = REPEATS) -> float:
    """The median time of ``call`` on the device, in seconds."""
    timed = _on_cuda if device.type == "cuda" else _on_cpu
    start = time.perf_counter()
    for _ in range(WARM_UP):
        timed(call)
        if time.perf_counter() - start > SECONDS:
            break
    start = time.perf_counter()
    times: list[float] = []
    while len(times) < repeats and (len(times) < LEAST or time.perf_counter() - start < SECONDS):
        times.append(timed(call))
    return statistics.median(times)


def _on_cpu(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _on_cuda(call: Callable[[], Any]) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1000
