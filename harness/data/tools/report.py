"""What `clipkd data check` prints."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness.data.entries import listed
from harness.data.tools.check import Report
from harness.data.tools.convert import BAD, Summary
from harness.data.tools.tally import spread
from harness.data.tools.verdict import counted

_MOST_SHARDS = 10  # lines about single shards; --out lists every sample
_MOST_RANGES = 8


def show(report: Report, console: Console) -> None:
    """Print counts, faults by kind and by shard, measures, repeated keys and gaps."""
    for line in _head(report):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if report.tally.bad:
        console.print(_kinds(report), _shards(report))
    if report.tally.num_good:
        console.print(_measures(report))
    for line in (*_duplicates(report), *_gaps(report)):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _head(report: Report) -> Iterator[str]:
    tally = report.tally
    if report.interrupted:
        yield f"interrupted: this is about {report.num_units:,} of {len(report.units):,} parts of the data"
    total = tally.num_good + tally.bad.total() - tally.bad["broken_shard"]
    files = "1 file" if len(tally.shards) == 1 else f"{len(tally.shards):,} files"
    yield f"{tally.num_good:,} of {total:,} samples can be used, in {files} of {report.units.about}"
    empty = [name for name, shard in tally.shards.items() if not shard.good and not shard.bad]
    if empty:
        yield f"without a single sample: {listed(empty)}"


def _kinds(report: Report) -> Table:
    table = Table("fault")
    table.add_column("count", justify="right")
    table.add_column("the first of them")
    for kind, count in report.tally.bad.most_common():
        first = report.tally.first[kind]
        where = f"{first.key} in {first.shard}" if first.key else first.shard
        table.add_row(kind, f"{count:,}", escape(f"{where}: {first.reason}"))
    return table


def _shards(report: Report) -> Table:
    """The shards with the most faults."""
    faulty = sorted(
        ((name, shard) for name, shard in report.tally.shards.items() if shard.bad),
        key=lambda item: -item[1].bad.total(),
    )
    table = Table("file", caption=f"and {len(faulty) - _MOST_SHARDS:,} more" if len(faulty) > _MOST_SHARDS else None)
    table.add_column("usable", justify="right")
    table.add_column("faults")
    for name, shard in faulty[:_MOST_SHARDS]:
        table.add_row(escape(name), f"{shard.good:,}", counted(shard.bad))
    return table


def _measures(report: Report) -> Table:
    table = Table("usable samples")
    for column in ("min", "median", "max"):
        table.add_column(column, justify="right")
    for name, counts in report.tally.measures.items():
        table.add_row(name, *(f"{value:,}" for value in spread(counts) or ()))
    return table


def _duplicates(report: Report) -> Iterator[str]:
    found = report.duplicates
    if found is None or not found.inside + found.between:
        return
    yield f"samples whose key occurs before: {found.inside:,} in the same file, {found.between:,} in another file"
    for key, first, second in report.repeated:
        yield f"  {key} " + (f"twice in {first}" if first == second else f"in {first} and in {second}")


def _gaps(report: Report) -> Iterator[str]:
    for gaps in report.gaps:
        more = f" and {len(gaps.ranges) - _MOST_RANGES:,} more ranges" if len(gaps.ranges) > _MOST_RANGES else ""
        yield f"missing shards of {gaps.name}: {gaps.count:,} ({', '.join(gaps.ranges[:_MOST_RANGES])}{more})"


def show_conversion(summary: Summary, out: Path, console: Console) -> None:
    """Print what a conversion left in its folder, and what it left out."""
    lines = [f"{out}: {summary.samples:,} samples, {summary.contents}"]
    if summary.bad and summary.first_bad:
        where = f"{summary.first_bad['key']} in {summary.first_bad['shard']}".removeprefix(" in ")
        lines += [
            f"left out: {counted(summary.bad)}; {out / BAD} lists them",
            f"  the first: {where}: {summary.first_bad['reason']}",
        ]
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
