"""Section on feature similarity of students and teachers: histograms of cosines, and linear CKA."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from harness.report.page.analysis import ModelAnalysis
from harness.report.page.analysis.feature_comparison import FeatureSimilarity
from harness.report.page.blocks import Block, Charts, Note, PageSection, Table
from harness.report.page.chart import Chart, Series
from harness.report.page.formatting import NONE, short
from harness.report.page.line_chart import file_stem
from harness.report.page.records import RunRecord

BINS = 40
SIDES = {"image": "images", "text": "captions"}
_TITLE = "Feature similarity to the teacher"


def feature_similarity_section(
    runs: Sequence[RunRecord], found: ModelAnalysis | None, compared: Sequence[FeatureSimilarity]
) -> PageSection:
    """Section on feature similarity.

    Args:
        runs: the runs.
        found: analysis of the models; None if they were not loaded.
        compared: similarities of students and teachers.
    """
    if not any(run.section("teacher") or run.settings.get("teachers") for run in runs):
        return PageSection(
            "similarity", _TITLE, [Note("No run has a teacher, so there is nothing to compare with.", "missing")]
        )
    if found is None:
        why = Note("No histogram: the models were not loaded (--no-models).", "missing")
        return PageSection("similarity", _TITLE, [why])
    blocks: list[Block] = [
        Note(text, "missing") for part in ("teacher", "similarity") for text in found.missing.get(part, [])
    ]
    if not compared or found.pairs is None:
        reason = "No histogram: no student was loaded together with its teacher and a retrieval set."
        return PageSection("similarity", _TITLE, [*blocks, Note(reason, "missing")])
    labels = _labels(compared)
    drawn = [(label, one) for label, one in labels if one.cosines]
    if drawn:
        charts = [_histogram(side, drawn) for side in SIDES]
        blocks.append(Charts(charts, [(_slot(one, labels), label) for label, one in drawn]))
    blocks.append(_table(labels))
    about = (
        f"Student's and teacher's features of the same input, on {len(found.pairs.images):,} pairs of "
        f"{found.pairs.item.name}. Cosine 1: the same direction. Linear CKA 1: the same geometry, up to "
        "width and rotation."
    )
    return PageSection("similarity", _TITLE, blocks, about)


def _labels(compared: Sequence[FeatureSimilarity]) -> list[tuple[str, FeatureSimilarity]]:
    several = len({one.teacher for one in compared}) > 1
    named = []
    for one in compared:
        label = f"{one.run.label} and {one.teacher}" if several else one.run.label
        named.append((label if one.own else f"{label} (not its teacher)", one))
    return named


def _slot(one: FeatureSimilarity, labels: Sequence[tuple[str, FeatureSimilarity]]) -> int:
    """Colour of a run; further ones if it is compared with several teachers."""
    same = [other for _, other in labels if other.run.label == one.run.label]
    return one.run.slot + same.index(one) * len({other.run.label for _, other in labels})


def _histogram(side: str, drawn: Sequence[tuple[str, FeatureSimilarity]]) -> Chart:
    values = [one.cosines[side].double() for _, one in drawn]
    low, high = min(v.min().item() for v in values), max(v.max().item() for v in values)
    edges = torch.linspace(low - 1e-6, high + 1e-6, BINS + 1, dtype=torch.float64)
    series, descriptions = [], []
    for (label, one), mine in zip(drawn, values, strict=True):
        share = 100 * torch.histogram(mine, edges).hist / len(mine)
        series.append(Series(label, _slot(one, drawn), edges.tolist(), share.tolist(), "steps"))
        descriptions.append(f"{label}: mean {short(mine.mean().item())}")
    alt = f"Histogram of the cosine between student and teacher, {SIDES[side]}. {'; '.join(descriptions)}."
    return Chart(
        file_stem(f"similarity-{side}"), f"{SIDES[side]}, percent of them", alt, "cosine with the teacher", series
    )


def _table(labels: Sequence[tuple[str, FeatureSimilarity]]) -> Table:
    compared = [one for _, one in labels]
    rows = [
        ["teacher", *(one.teacher for one in compared)],
        *([f"cosine, {name}", *(_near(one, side) for one in compared)] for side, name in SIDES.items()),
        *([f"linear CKA, {name}", *(f"{one.cka[side]:.3f}" for one in compared)] for side, name in SIDES.items()),
        ["cosine computed", *(_how(one) for one in compared)],
    ]
    caption = "Cosine: mean, and in brackets the 5th and 95th percentile."
    return Table(caption, ["", *(label for label, _ in labels)], rows, wrap=True)


def _near(one: FeatureSimilarity, side: str) -> str:
    return _spread(one.cosines[side]) if one.cosines else NONE


def _how(one: FeatureSimilarity) -> str:
    if not one.cosines:
        return "no: the widths differ"
    return "after the loss's projection" if one.projected else "directly"


def _spread(values: Tensor) -> str:
    low, high = torch.quantile(values.double(), torch.tensor([0.05, 0.95], dtype=torch.float64)).tolist()
    return f"{values.mean().item():.3f} ({low:.2f} to {high:.2f})".replace("-", "\u2212")
