"""The benchmark's loop: estimate, measure, write, show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from harness.bench.losses.baselines import BASELINES
from harness.bench.losses.cases import Case
from harness.bench.losses.estimate import estimate
from harness.bench.losses.measure_case import CaseBudget, attempt, measure
from harness.bench.losses.resultfile import ResultFile
from harness.bench.losses.rows import FAILED, LossRow, Origin, make_row


class GridDisplay(Protocol):
    """Shows a run to a person."""

    def begin(self, case: Case) -> None:
        """This case runs now."""

    def show(self, row: LossRow, measured: bool) -> None:
        """This row is there, measured just now or in the file already."""


@dataclass
class GridCounts:
    """How many cases were measured or estimated now, were in the file already, and failed by somebody's bug."""

    new: int = 0
    old: int = 0
    failed: list[LossRow] = field(default_factory=list)


def computed(losses: Sequence[str], implementations: Sequence[str]) -> list[tuple[str, str]]:
    """The pairs of loss and implementation that exist: no baseline but the formula has all losses."""
    return [
        (loss, implementation)
        for loss in losses
        for implementation in implementations
        if implementation not in BASELINES or BASELINES[implementation].computes(loss)
    ]


def run(
    cases: Sequence[Case], file: ResultFile, source: Origin, budget: CaseBudget, display: GridDisplay
) -> GridCounts:
    """Measure what is not settled in the file, case by case, each row on disk before the next case."""
    counts = GridCounts()
    for case in cases:
        old = file.settled(case, source, budget.rss)
        if old is not None:
            counts.old += 1
            display.show(old, measured=False)
            continue
        display.begin(case)
        row = _result(case, file, source, budget)
        file.append(row)
        counts.new += 1
        counts.failed += [row] if row.status == FAILED else []
        display.show(row, measured=True)
    return counts


def _result(case: Case, file: ResultFile, source: Origin, budget: CaseBudget) -> LossRow:
    # Other code, or another machine, says nothing about this one.
    ours = [row for row in file.rows if row.origin.same == source.same]
    verdict = estimate(case, ours, budget)
    return make_row(case, source, *verdict) if verdict else attempt(case, source, partial(measure, budget=budget))
