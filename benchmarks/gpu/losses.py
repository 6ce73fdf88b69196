"""The losses' targets on a GPU: time and memory of ours and of others' at large batches, in bfloat16.

Rows as those of ``clipkd bench losses``, so that its tables, plots and targets read them. Before anything is timed,
each loss of each implementation is held against float64 at a small batch, value and gradient.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import product

import torch

import kdlosses
from benchmarks.gpu.check import check
from benchmarks.gpu.step import Arguments, Journal, device_name, leave_if_device_is_lost, now, parse, version_of
from harness.bench.losses.baselines import BASELINES
from harness.bench.losses.cases import Case
from harness.bench.losses.implementations import make_setup
from harness.bench.losses.measure_case import CaseBudget, Figures, attempt, columns, measure
from harness.bench.losses.memory import measure_peaks, release
from harness.bench.losses.resultfile import ResultFile
from harness.bench.losses.rows import FAILED, OK, UNSUPPORTED, LossRow, Origin, make_row
from harness.bench.losses.timing import Matmul, Percentiles, Times, make_clock

# The most telling first: ours at the sizes of the targets, then who is nearest, then what needs B x B matrices.
BATCHES = (32_768, 4_096, 65_536, 16_384)
WIDTHS = (512, 768)
LOSSES = ("clip_kd", "contrastive", "siglip")
ROUNDS = (("triton",), ("memeff", "siglip-kernel"), ("dense",), ("formula-compile",))
BUDGET, TINY_BUDGET = CaseBudget(repeats=10, seconds=6.0), CaseBudget(repeats=1, seconds=1.0)
# One step at this size takes half a minute, so it is neither repeated nor warmed up at its own size.
MILLION, MILLION_LOSSES = 1_048_576, ("contrastive", "clip_kd")
COMPILED_AT = 16_384


def main(words: list[str]) -> None:
    """Measure every case that has no row yet."""
    *words, which = words
    given = parse(words)
    budget = TINY_BUDGET if given.tiny else BUDGET
    if which == "million":
        measure_all(million_cases(given), given, once, which)
    else:
        measure_all(large_cases(given), given, partial(measure, budget=budget), which)


def large_cases(given: Arguments) -> list[Case]:
    """All of the targets' sizes, round by round."""
    if given.tiny:
        usable = [
            name for name, reason in kdlosses.backends.available().items() if reason is None and name != "reference"
        ]
        # Interpreted kernels take seconds for what others do in milliseconds.
        return [
            _case(loss, name, 24, 16, given)
            for name in [*usable, "formula"]
            for loss in (LOSSES[1:] if name == "triton" else LOSSES)
        ]
    return [
        _case(loss, implementation, batch, dim, given)
        for implementations in ROUNDS
        for dim, batch, loss, implementation in product(WIDTHS, BATCHES, LOSSES, implementations)
        if implementation not in BASELINES or BASELINES[implementation].computes(loss)
    ]


def million_cases(given: Arguments) -> list[Case]:
    """One step of our kernels at B = 1,048,576."""
    batch, dim, backend = (96, 16, "chunked") if given.tiny else (MILLION, 512, "triton")
    return [_case(loss, backend, batch, dim, given) for loss in MILLION_LOSSES]


def once(case: Case) -> Figures:
    """A single step, timed and weighed together; the kernels are compiled by one of a small batch."""
    make_setup(replace(case, batch=min(case.batch, COMPILED_AT))).forward().backward()
    setup, clock = make_setup(case), make_clock(case.device)
    marks = [clock.mark()]
    peaks = measure_peaks(setup, case.device, lambda: marks.append(clock.mark()))
    forward, both = clock.between(*marks[:2]), clock.between(marks[0], marks[2])
    setup.clear()
    release(case.device)
    matmul = Matmul(case)
    start = clock.mark()
    matmul()
    times = Times(
        *(Percentiles.of([value]) for value in (forward, both - forward, both)), clock.between(start, clock.mark()), 1
    )
    memory = {"peak_forward_bytes": peaks.forward, "peak_bytes": peaks.both}
    return {**columns(times), **memory, "value": peaks.value.item()}


def measure_all(cases: Sequence[Case], given: Arguments, measured: Callable[[Case], Figures], which: str) -> None:
    """Check, measure and write, case by case."""
    file, source = ResultFile(given.out / "losses.csv"), origin(given)
    journal = Journal(given.work / f"{which}.begun")
    crashed = set(journal.begun) - {_label(row.case) for row in file.rows}
    checked: dict[tuple[str, str, int], str] = {}
    for case in cases:
        label = _label(case)
        if any(row.case == case for row in file.rows):
            continue
        if label in crashed:
            file.append(make_row(case, source, FAILED, "the process crashed or hung in this case"))
            continue
        journal.begin(label)
        file.append(_row(case, source, measured, checked))
        leave_if_device_is_lost(given.device)


def _row(
    case: Case, source: Origin, measured: Callable[[Case], Figures], checked: dict[tuple[str, str, int], str]
) -> LossRow:
    if reason := _unusable(case):
        return make_row(case, source, UNSUPPORTED, reason)
    kind = (case.loss, case.implementation, case.dim)
    if kind not in checked:
        found = check(case)
        if not found.passed:
            return make_row(case, source, FAILED, f"against float64: {found.note}")
        checked[kind] = found.note
    row = attempt(case, source, measured)
    return replace(row, note="; ".join(part for part in (row.note, checked[kind]) if part)) if row.status == OK else row


def _unusable(case: Case) -> str | None:
    if case.implementation in BASELINES:
        return BASELINES[case.implementation].unavailable(case.device)
    return kdlosses.backends.available()[case.implementation]


def origin(given: Arguments) -> Origin:
    """Here and now; the commit is told, as a copy of a checkout does not know it."""
    return Origin(
        machine=device_name(given.device),
        kdlosses=kdlosses.__version__,
        torch=str(torch.__version__),
        open_clip=version_of("open_clip_torch"),
        memeff=version_of("memeff"),
        triton=version_of("triton"),
        commit=given.commit,
        command=given.command,
        date=now(),
    )


def _case(loss: str, implementation: str, batch: int, dim: int, given: Arguments) -> Case:
    return Case(loss, "paper", implementation, batch, dim, dim, "bfloat16", given.device, torch.get_num_threads())


def _label(case: Case) -> str:
    return f"{case.loss} {case.implementation} {case.batch} {case.dim}"


if __name__ == "__main__":
    main(sys.argv[1:])
