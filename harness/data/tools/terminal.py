"""Terminal output of `clipkd data check` and `convert`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness.data.entries import listed
from harness.data.shard_sizes import SIZES, STATS
from harness.data.tools.check import CheckReport
from harness.data.tools.convert import SKIPPED, Summary
from harness.data.tools.dataset_stats import spread
from harness.data.tools.failure_reason import counted

_MOST_SHARDS = 10  # lines about single shards; --out lists every sample
_MOST_RANGES = 8


def show(report: CheckReport, console: Console) -> None:
    """Print counts, faults by kind and by shard, measures, repeated keys and gaps."""
    for line in _head(report):
        console.print(_printable(line), highlight=False, markup=False, soft_wrap=True)
    if report.stats.skipped:
        console.print(_kinds(report), _shards(report))
    if report.stats.num_usable:
        console.print(_measures(report))
    for line in (*_duplicates(report), *_gaps(report), *_sizes(report)):
        console.print(_printable(line), highlight=False, markup=False, soft_wrap=True)


def _head(report: CheckReport) -> Iterator[str]:
    stats = report.stats
    if report.interrupted:
        yield f"interrupted: this is about {report.num_units:,} of {len(report.units):,} parts of the data"
    files = "1 file" if len(stats.shards) == 1 else f"{len(stats.shards):,} files"
    yield f"{stats.num_usable:,} of {stats.num_read:,} samples can be used, in {files} of {report.units.about}"
    empty = [name for name, shard in stats.shards.items() if not shard.num_read and "broken_shard" not in shard.skipped]
    if empty:
        yield f"without a single sample: {listed(empty)}"


def _kinds(report: CheckReport) -> Table:
    table = Table("fault")
    table.add_column("count", justify="right")
    table.add_column("the first of them")
    for kind, count in report.stats.skipped.most_common():
        first = report.stats.first[kind]
        where = f"{first.key} in {first.shard}" if first.key else first.shard
        table.add_row(kind, f"{count:,}", escape(_printable(f"{where}: {first.reason}")))
    return table


def _shards(report: CheckReport) -> Table:
    """The shards with the most faults."""
    faulty = sorted(
        ((name, shard) for name, shard in report.stats.shards.items() if shard.skipped),
        key=lambda item: -item[1].skipped.total(),
    )
    table = Table("file", caption=f"and {len(faulty) - _MOST_SHARDS:,} more" if len(faulty) > _MOST_SHARDS else None)
    table.add_column("usable", justify="right")
    table.add_column("faults")
    for name, shard in faulty[:_MOST_SHARDS]:
        table.add_row(escape(_printable(name)), f"{shard.usable:,}", counted(shard.skipped))
    return table


def _measures(report: CheckReport) -> Table:
    table = Table("usable samples")
    for column in ("min", "median", "max"):
        table.add_column(column, justify="right")
    for name, counts in report.stats.measures.items():
        table.add_row(name, *(f"{value:,}" for value in spread(counts) or ()))
    return table


def _duplicates(report: CheckReport) -> Iterator[str]:
    found = report.duplicates
    if found is None or not found.inside + found.between:
        return
    yield f"samples whose key occurs before: {found.inside:,} in the same file, {found.between:,} in another file"
    for key, first, second in report.repeated:
        yield f"  {key} " + (f"twice in {first}" if first == second else f"in {first} and in {second}")


def _gaps(report: CheckReport) -> Iterator[str]:
    for gaps in report.gaps:
        more = f" and {len(gaps.ranges) - _MOST_RANGES:,} more ranges" if len(gaps.ranges) > _MOST_RANGES else ""
        yield f"missing shards of {gaps.name}: {gaps.count:,} ({', '.join(gaps.ranges[:_MOST_RANGES])}{more})"


def _sizes(report: CheckReport) -> Iterator[str]:
    if report.sizes:
        yield f"shards with another number of samples than {SIZES} or {STATS} say: {len(report.sizes):,}"
    for shard, found, written in report.sizes[:_MOST_SHARDS]:
        yield f"  {shard}: {found:,}, not {written:,}"


def _printable(text: str) -> str:
    """Return a text with what no terminal shows escaped, such as the bytes of a name that are not UTF-8."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def show_conversion(summary: Summary, out: Path, console: Console) -> None:
    """Print what a conversion left in its folder, and what it left out."""
    lines = [f"{out}: {summary.samples:,} samples, {summary.contents}"]
    if summary.skipped and summary.first_skipped:
        where = f"{summary.first_skipped['key']} in {summary.first_skipped['shard']}".removeprefix(" in ")
        lines += [
            f"left out: {counted(summary.skipped)}; {out / SKIPPED} lists them",
            f"  the first: {where}: {summary.first_skipped['reason']}",
        ]
    for line in lines:
        console.print(_printable(line), highlight=False, markup=False, soft_wrap=True)
