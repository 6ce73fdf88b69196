"""Terminal tables: the parts of a step, and the speed of the trainers."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from harness.bench.losses.formats import digits, milliseconds, size, threads
from harness.bench.train.parts import PARTS
from harness.bench.train.rows import TrainRow

_PLAIN: dict[str, Any] = {"markup": False, "highlight": False, "soft_wrap": True}


def show(rows: Sequence[TrainRow], console: Console) -> None:
    """Print the parts of our own step, then all trainers and what they share."""
    ours = next(row for row in rows if row.parts)
    setting = ours.setting
    where = ours.origin.machine + (f", {threads(setting.threads)}" if setting.device == "cpu" else "")
    console.print(f"{setting.recipe}: a step of {setting.batch:,} pairs on {where}", style="bold", **_PLAIN)
    console.print(split_table(ours))
    console.print(subject_table(rows))
    for line in remarks(ours):
        console.print(line, style="dim", **_PLAIN)


def split_table(row: TrainRow) -> Table:
    """A line a part."""
    table = _table("part", ("median", "p20", "p80", "share"))
    total = sum(row.parts[part].median for part in PARTS)
    for part in PARTS:
        spread = row.parts[part]
        times = [milliseconds(value) for value in (spread.median, spread.p20, spread.p80)]
        table.add_row(part, *times, _percent(spread.median / total))
    table.add_section()
    table.add_row("step", *(milliseconds(value) for value in (row.step.median, row.step.p20, row.step.p80)), "")
    return table


def subject_table(rows: Sequence[TrainRow]) -> Table:
    """A line a trainer."""
    table = _table("trainer", ("images/s", "step", "matmul", "idle", "peak", "clipkd is"))
    for row in rows:
        table.add_row(
            row.trainer,
            digits(row.images_per_second),
            milliseconds(row.step.median),
            _percent(row.matmul_share),
            _percent(row.idle),
            size(row.peak_bytes),
            f"{median(row.speedups):.2f} x" if row.speedups else "",
        )
    return table


def remarks(row: TrainRow) -> list[str]:
    """What the numbers are of."""
    setting = row.setting
    held = "cached" if setting.teacher_cache else f"{setting.teacher_parameters / 1e6:.1f} M"
    teacher = f" <- {setting.teacher} ({held})" if setting.teacher else ""
    assert row.flops is not None and row.matmul_flops_per_second is not None  # of our own step they are measured
    return [
        f"{setting.student} ({setting.student_parameters / 1e6:.1f} M){teacher}; {setting.image_size} pixels, "
        f"{setting.precision}, {setting.data} data; objective: {setting.objective}; {row.steps} steps of each in "
        f"{row.rounds} rounds, warm-up aside",
        f"clipkd's step is {row.flops / 1e9:,.1f} GFLOP (products, convolutions, attention); "
        f"a large {setting.precision} product runs at {row.matmul_flops_per_second / 1e9:,.0f} GFLOP/s here",
        "matmul: the step's rate over the product's; idle: time without work; clipkd is: times as many images a second",
    ]


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


def _table(first: str, others: Sequence[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table
