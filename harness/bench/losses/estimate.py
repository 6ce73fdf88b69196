"""Estimates of cases that need not be run: what smaller batches, or a run without memory, say about memory and time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from harness.bench.losses.cases import Case, weights_of
from harness.bench.losses.dryrun import dry_run
from harness.bench.losses.formats import milliseconds, size
from harness.bench.losses.lower_bound import matmul_lower_bound
from harness.bench.losses.measure_case import CaseBudget
from harness.bench.losses.memory import USABLE, available_bytes
from harness.bench.losses.rows import (
    OK,
    OUT_OF_MEMORY,
    PREDICTED_OUT_OF_MEMORY,
    PREDICTED_TOO_SLOW,
    LossRow,
)
from harness.bench.losses.timing import LEAST_REPEATS

# Where a dry run of the case itself is too long, those of these batches stand beside what was measured.
ANCHORS = (2048, 4096)
# A GPU tells when its memory is exhausted and goes on, so what is farther off than this is tried all the same.
FAR = 4


def estimate(case: Case, rows: Sequence[LossRow], budget: CaseBudget) -> tuple[str, str] | None:
    """Status and note of a case that would run out of memory or over the time limit, None for one worth a try.

    Args:
        case: what is about to run.
        rows: what this run's machine and code have measured so far.
        budget: the time limit and the repeats.
    """
    smaller = _smaller(case, rows)
    memory = _memory(case, smaller)
    return memory or _time(case, smaller, rows, budget)


def _smaller(case: Case, rows: Sequence[LossRow]) -> list[LossRow]:
    """The same implementation's rows at smaller batches, ascending."""
    found = {row.batch: row for row in rows if row.batch < case.batch and replace(row.case, batch=case.batch) == case}
    return [found[batch] for batch in sorted(found)]


def _memory(case: Case, smaller: Sequence[LossRow]) -> tuple[str, str] | None:
    exhausted = next((row.batch for row in smaller if row.status == OUT_OF_MEMORY), None)
    if exhausted is not None:
        return PREDICTED_OUT_OF_MEMORY, f"ran out of memory at B = {exhausted}"
    free = USABLE * available_bytes(case.device)
    points = [(row.batch, row.peak_bytes) for row in smaller if row.status == OK and row.peak_bytes is not None]
    if points and _square(points, case.batch) < free:
        return None  # even if it grew with B x B from here on
    counted, complete = dry_run(case) or (0, False)
    if counted >= free:
        least = "" if complete else "at least "
        text = f"needs {least}{size(counted)} (counted without allocating it), {size(free)} can be used"
        return PREDICTED_OUT_OF_MEMORY, text
    points += _anchors(case, points)
    guess = None if complete else _extrapolated(points, case.batch)
    if guess is None or guess < free or (case.device == "cuda" and case.batch > FAR * points[-1][0]):
        return None
    return PREDICTED_OUT_OF_MEMORY, f"needs {size(guess)} (by smaller batches), {size(free)} can be used"


def _anchors(case: Case, points: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Dry runs at batches between the measured ones and the case's."""
    largest = points[-1][0] if points else 0
    sizes = [batch for batch in ANCHORS if largest < batch < case.batch]
    runs = [(batch, dry_run(replace(case, batch=batch))) for batch in sizes]
    return [(batch, run[0]) for batch, run in runs if run is not None and run[1]]


def _time(
    case: Case, smaller: Sequence[LossRow], rows: Sequence[LossRow], budget: CaseBudget
) -> tuple[str, str] | None:
    passes = 2 + min(budget.repeats, LEAST_REPEATS)  # one counts memory, one warms up
    points = [(row.batch, row.both_ms) for row in smaller if row.status == OK and row.both_ms is not None]
    guess, least = _extrapolated(points, case.batch), _lower_bound_ms(case, rows)
    needed = max(guess or 0.0, least or 0.0)
    if passes * needed <= 1e3 * budget.seconds:
        return None
    how = "by smaller batches" if needed == guess else "its matrix products alone"
    text = f"{passes} passes of {milliseconds(needed)} ({how}), the time limit is {budget.seconds:g} s"
    return PREDICTED_TOO_SLOW, text


def _lower_bound_ms(case: Case, rows: Sequence[LossRow]) -> float | None:
    """What the loss's matrix products alone take, by the matmul of the largest batch measured up to this one."""
    same: dict[str, Any] = {"loss": case.loss, "implementation": case.implementation, "batch": case.batch}
    near = [row for row in rows if row.status == OK and row.batch <= case.batch and replace(row.case, **same) == case]
    bound = matmul_lower_bound(weights_of(case.loss, case.variant), case.variant, case.dim, case.teacher_dim)
    if not near:
        return None
    largest = max(near, key=lambda row: row.batch)
    assert largest.matmul_ms is not None  # measured with the case
    return bound.kept * _square([(largest.batch, largest.matmul_ms)], case.batch)


def _extrapolated(points: Sequence[tuple[int, float]], batch: int) -> float | None:
    """By `a B + c B^2` through the last two points, neither below zero; as the square of B with one point alone."""
    if len(points) < 2:
        return _square(points, batch) if points else None
    (b0, y0), (b1, y1) = points[-2:]
    c = (y1 / b1 - y0 / b0) / (b1 - b0)
    a = y1 / b1 - c * b1
    if a < 0:
        return _square(points, batch)
    return y1 * batch / b1 if c < 0 else a * batch + c * batch**2


def _square(points: Sequence[tuple[int, float]], batch: int) -> float:
    largest, value = points[-1]
    return value * (batch / largest) ** 2
