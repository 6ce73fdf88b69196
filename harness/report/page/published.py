"""Comparison of a run with the published numbers of its recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.config.published import PublishedConfig
from harness.report.page.blocks import Block, Note, Table
from harness.report.page.formatting import NONE, difference, percent
from harness.report.page.records import RunRecord
from harness.report.page.scores import Scores

# Names of ImageNet in suites and in clip_benchmark.
IMAGENET = ("imagenet1k", "imagenet")


def published_blocks(
    runs: Sequence[RunRecord], scores: Mapping[str, Scores], teachers: Mapping[str, Scores]
) -> list[Block]:
    """Blocks of the section on accuracy; empty if no recipe has published numbers."""
    known = [(run, run.recipe.published) for run in runs if run.recipe and run.recipe.published]
    if not known:
        return []
    rows = [_row(run, numbers, scores[run.label]) for run, numbers in known]
    header = ["run", "measured", "published", "difference", "published baseline", "published teacher"]
    blocks: list[Block] = [
        Table("Zero-shot ImageNet top-1 against the published numbers: percent, difference in points.", header, rows)
    ]
    for run, _ in known:
        if imagenet_top1(scores[run.label]) is None:
            blocks.append(Note(f"{run.label} was not evaluated on ImageNet, so there is no comparison.", "missing"))
    blocks += [Table(f"The published run of {run.label}.", ["", ""], _about(n), wrap=True) for run, n in known]
    return blocks


def imagenet_top1(scores: Scores) -> float | None:
    """Top-1 on ImageNet's validation set, or None."""
    return next((scores[name]["top1"] for name in IMAGENET if "top1" in scores.get(name, {})), None)


def _row(run: RunRecord, numbers: PublishedConfig, scores: Scores) -> list[str]:
    mine = imagenet_top1(scores)
    apart = None if mine is None or numbers.top1 is None else mine - numbers.top1
    shown = [_exact(value) for value in (numbers.top1, numbers.baseline_top1, numbers.teacher_top1)]
    return [run.label, percent(mine), shown[0], difference(apart), *shown[1:]]


def _exact(value: float | None) -> str:
    """Format a number as published."""
    return NONE if value is None else f"{value:g}"


def _about(numbers: PublishedConfig) -> list[tuple[str, str]]:
    pairs = [
        ("source", numbers.source),
        ("hardware", numbers.hardware or "unknown"),
        ("hours", "unknown" if numbers.hours is None else f"{numbers.hours:g}"),
        *(("deviations", text) for text in numbers.deviations),
        *(("unknown", text) for text in numbers.unknowns),
    ]
    if getattr(numbers, "pairs", None):
        pairs.insert(3, ("training pairs", f"{numbers.pairs:,}"))
    return pairs
