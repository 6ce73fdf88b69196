"""The live table: one a loss, its finished lines stay when the next loss begins."""

from __future__ import annotations

from collections.abc import Collection
from types import TracebackType

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from harness.bench.losses.cases import Case
from harness.bench.losses.formats import digits, milliseconds, size, threads
from harness.bench.losses.implementations import REFERENCE
from harness.bench.losses.rows import (
    FAILED,
    OK,
    OUT_OF_MEMORY,
    PREDICTED_OUT_OF_MEMORY,
    PREDICTED_TOO_SLOW,
    UNSUPPORTED,
    LossRow,
)

STATUS_LABELS = {
    OUT_OF_MEMORY: "no memory",
    PREDICTED_OUT_OF_MEMORY: "no memory*",
    PREDICTED_TOO_SLOW: "too slow*",
    UNSUPPORTED: "unsupported",
    FAILED: "failed",
}
COLUMNS = ("forward", "backward", "both", "x matmul", "peak", "x time", "x peak")


class LiveTable:
    """Shows rows as they come; outside a terminal each loss's table is printed when it is complete.

    Args:
        total: how many cases there are.
        console: where to.
    """

    def __init__(self, total: int, console: Console) -> None:
        self._total, self._console = total, console
        self._done = 0
        self._group: tuple[str, str] | None = None
        self._rows: list[LossRow] = []
        self._old: set[Case] = set()
        self._live: Live | None = None

    def __enter__(self) -> LiveTable:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def begin(self, case: Case) -> None:
        """Say what runs now, under the table."""
        self._open(case)
        text = (
            f"measuring {case.loss}, {case.implementation}, B = {case.batch:,} ({self._done + 1} of {self._total}) ..."
        )
        self._update(Text(text, style="dim"))

    def show(self, row: LossRow, measured: bool) -> None:
        """Add a line; one that was in the file already is dim."""
        self._open(row.case)
        self._done += 1
        self._rows.append(row)
        if not measured:
            self._old.add(row.case)
        self._update()

    def _open(self, case: Case) -> None:
        group = (case.dtype, case.loss)
        if group != self._group:
            self._close()
            self._group, self._rows = group, []
            if self._console.is_terminal:
                # No refreshing thread: it would take its share of the processor while a case is timed.
                self._live = Live(console=self._console, auto_refresh=False)
                self._live.start()

    def _update(self, below: Text | None = None) -> None:
        if self._live is not None:
            table = make_table(self._rows, self._old) if self._rows else Text()
            self._live.update(Group(table, below) if below else table, refresh=True)

    def _close(self) -> None:
        if self._live is not None:
            self._update()
            self._live.stop()
        elif self._rows:
            self._console.print(make_table(self._rows, self._old))
        self._live = None
        for note in dict.fromkeys(row.note for row in self._rows if row.status in (UNSUPPORTED, FAILED)):
            whose = ", ".join(f"{row.implementation} (B = {row.batch:,})" for row in self._rows if row.note == note)
            self._console.print(f"{whose}: {note}", style="yellow", markup=False, highlight=False, soft_wrap=True)


def make_table(rows: list[LossRow], old: Collection[Case] = ()) -> Table:
    """One loss's rows: times, multiples of a matmul, memory; the last two columns are multiples of dense's."""
    first = rows[0]
    width = f"{first.dim}" if first.dim == first.teacher_dim else f"{first.dim}/{first.teacher_dim}"
    title = f"{first.loss} ({first.variant}), {first.dtype}, D = {width}, {first.device}, {threads(first.threads)}"
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=0)
    table.add_column("B", justify="right", no_wrap=True)
    table.add_column("backend", no_wrap=True)
    reference = next((row.implementation for row in rows if row.implementation == REFERENCE), first.implementation)
    for name in COLUMNS:
        table.add_column(name, justify="right", no_wrap=True)
    for number, row in enumerate(rows):
        new_batch = number > 0 and row.batch != rows[number - 1].batch
        if new_batch:
            table.add_section()
        base = next((r for r in rows if (r.implementation, r.batch, r.status) == (reference, row.batch, OK)), None)
        table.add_row(*_cells(row, base), style="dim" if row.case in old else None)
    return table


def _cells(row: LossRow, base: LossRow | None) -> list[str]:
    start = [f"{row.batch:,}", row.implementation]
    if row.status != OK:
        return [*start, "", "", STATUS_LABELS[row.status], "", "", "", ""]
    assert row.both_ms is not None and row.matmuls is not None and row.peak_bytes is not None  # measured
    times = ["" if value is None else milliseconds(value) for value in (row.forward_ms, row.backward_ms, row.both_ms)]
    ratios = [
        _ratio(row.both_ms, None if base is None else base.both_ms),
        _ratio(row.peak_bytes, None if base is None else base.peak_bytes),
    ]
    return [*start, *times, digits(row.matmuls), size(row.peak_bytes), *ratios]


def _ratio(value: float, base: float | None) -> str:
    return digits(value / base) if base else ""
