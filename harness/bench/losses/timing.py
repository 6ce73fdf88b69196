"""Times of one case: forward, backward and both from the same passes, a matrix product before each for comparison."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import torch

from harness.bench.losses.cases import Case
from harness.bench.losses.implementations import Setup

# The product's own B x B output, beyond this size in blocks of rows: it must not be what runs out of memory. A GPU
# needs taller blocks to be busy.
MATMUL_BLOCK_BYTES = {"cpu": 2**28, "cuda": 2**32}
# Fewer passes than this say nothing about the spread, so the time limit ends none before.
LEAST_REPEATS = 3
# Threads, caches and clocks settle within this.
WARM_UP_SECONDS = 0.1


class Clock(Protocol):
    """Marks moments, and tells the milliseconds between two of them."""

    def mark(self) -> Any:
        """This moment, as the device sees it."""

    def between(self, start: Any, stop: Any) -> float:
        """Milliseconds; waits until the device has reached `stop`."""


class CpuClock:
    """Operators on the CPU have ended when they return."""

    def mark(self) -> float:
        """Seconds."""
        return time.perf_counter()

    def between(self, start: float, stop: float) -> float:
        """Milliseconds."""
        return 1e3 * (stop - start)


class CudaClock:
    """Events in the device's own queue, which runs behind the CPU."""

    def mark(self) -> torch.cuda.Event:
        """An event queued after all work so far."""
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def between(self, start: torch.cuda.Event, stop: torch.cuda.Event) -> float:
        """Milliseconds."""
        stop.synchronize()
        return start.elapsed_time(stop)


def make_clock(device: str) -> Clock:
    """The clock of a device."""
    return CudaClock() if device == "cuda" else CpuClock()


class Matmul:
    """One B x D x B matrix product of the case's dtype into memory that is there already."""

    def __init__(self, case: Case) -> None:
        self._rows = max(1, min(case.batch, MATMUL_BLOCK_BYTES[case.device] * case.batch // case.matrix_bytes))
        like: dict[str, Any] = {"dtype": case.torch_dtype, "device": case.device}
        self._left, self._right = (torch.randn(case.batch, case.dim, **like) for _ in range(2))
        self._out = torch.empty(self._rows, case.batch, **like)

    def __call__(self) -> None:
        """Compute it."""
        for block in self._left.split(self._rows):
            torch.mm(block, self._right.T, out=self._out[: len(block)])


@dataclass(frozen=True)
class Percentiles:
    """Median and 20th and 80th percentile, in milliseconds."""

    median: float
    p20: float
    p80: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Percentiles:
        """Of single measurements."""
        low, median, high = np.percentile(values, [20, 50, 80])
        return cls(float(median), float(low), float(high))


@dataclass(frozen=True)
class Times:
    """What the repeats of one case came to."""

    forward: Percentiles
    backward: Percentiles
    both: Percentiles
    matmul: float
    repeats: int


def warm_up(setup: Setup, matmul: Callable[[], None]) -> None:
    """At least one pass, and more while they are short."""
    stop = time.perf_counter() + WARM_UP_SECONDS
    while True:
        matmul()
        setup.forward().backward()
        setup.clear()
        if time.perf_counter() >= stop:
            return


def measure_times(setup: Setup, matmul: Callable[[], None], clock: Clock, repeats: int, seconds: float) -> Times:
    """Time up to `repeats` passes, fewer when `seconds` are over, but `LEAST_REPEATS` where `repeats` allows.

    The matmul is timed before each pass and after the last, so that it sees the machine as the passes see it.
    """
    stop = time.perf_counter() + seconds
    rounds: list[list[float]] = []
    while len(rounds) < repeats and (len(rounds) < LEAST_REPEATS or time.perf_counter() < stop):
        rounds.append(_round(setup, matmul, clock))
    start = clock.mark()
    matmul()
    last = clock.between(start, clock.mark())
    matmuls, *passes = zip(*rounds, strict=True)
    forward, backward, both = (Percentiles.of(values) for values in passes)
    return Times(forward, backward, both, Percentiles.of([*matmuls, last]).median, len(rounds))


def _round(setup: Setup, matmul: Callable[[], None], clock: Clock) -> list[float]:
    """Milliseconds of matmul, forward, backward and both. Nothing is read before all is queued: no waiting between."""
    marks = [clock.mark()]
    matmul()
    marks.append(clock.mark())
    loss = setup.forward()
    marks.append(clock.mark())
    loss.backward()
    marks.append(clock.mark())
    del loss
    setup.clear()
    spans = [clock.between(start, stop) for start, stop in pairwise(marks)]
    return [*spans, clock.between(marks[1], marks[3])]
