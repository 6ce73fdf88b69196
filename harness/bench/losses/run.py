"""The benchmark's loop: foretell, measure, write, show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from harness.bench.losses.cases import Case
from harness.bench.losses.contenders import CONTENDERS
from harness.bench.losses.measure import Effort, attempt, measure
from harness.bench.losses.predict import foretell
from harness.bench.losses.resultfile import ResultFile
from harness.bench.losses.rows import FAILED, Origin, Row, make_row


class Display(Protocol):
    """Shows a run to a person."""

    def begin(self, case: Case) -> None:
        """This case runs now."""

    def show(self, row: Row, measured: bool) -> None:
        """This row is there, measured just now or in the file already."""


@dataclass
class Tally:
    """How many cases were measured or foretold now, were in the file already, and failed by somebody's bug."""

    new: int = 0
    old: int = 0
    failed: list[Row] = field(default_factory=list)


def computed(losses: Sequence[str], subjects: Sequence[str]) -> list[tuple[str, str]]:
    """The pairs of loss and subject that exist: no contender but the formula has all losses."""
    return [
        (loss, subject)
        for loss in losses
        for subject in subjects
        if subject not in CONTENDERS or CONTENDERS[subject].computes(loss)
    ]


def run(cases: Sequence[Case], file: ResultFile, source: Origin, effort: Effort, display: Display) -> Tally:
    """Measure what is not settled in the file, case by case, each row on disk before the next case."""
    tally = Tally()
    for case in cases:
        old = file.settled(case, source, effort.rss)
        if old is not None:
            tally.old += 1
            display.show(old, measured=False)
            continue
        display.begin(case)
        row = _result(case, file, source, effort)
        file.append(row)
        tally.new += 1
        tally.failed += [row] if row.status == FAILED else []
        display.show(row, measured=True)
    return tally


def _result(case: Case, file: ResultFile, source: Origin, effort: Effort) -> Row:
    # Other code, or another machine, says nothing about this one.
    ours = [row for row in file.rows if row.origin.same == source.same]
    verdict = foretell(case, ours, effort)
    return make_row(case, source, *verdict) if verdict else attempt(case, source, partial(measure, effort=effort))
