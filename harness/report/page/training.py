"""Section on training: curves of the loss and its terms, learning rate, gradient norm, logit scale and speed."""

from __future__ import annotations

from collections.abc import Sequence

from harness.report.page.blocks import Block, Charts, Note, PageSection
from harness.report.page.chart import MAX_POINTS
from harness.report.page.line_chart import legend, line_chart
from harness.report.page.records import RunRecord
from harness.report.page.scores import is_number

_TERM = "_loss"
_OTHERS = {
    "lr": "learning rate",
    "grad_norm": "gradient norm",
    "logit_scale": "logit scale (1 / temperature)",
    "images_per_second": "training speed, images/s",
}
_LOG = ("grad_norm",)


def training_section(runs: Sequence[RunRecord]) -> PageSection:
    """Section of training curves."""
    drawn = [run for run in runs if run.training]
    blocks: list[Block] = [
        Note(f"{run.label}: metrics.jsonl holds no training steps, so there are no curves.", "missing")
        for run in runs
        if not run.training
    ]
    if drawn:
        charts = [line_chart(key, title, drawn, _points(drawn, key), log=log) for key, title, log in _keys(drawn)]
        blocks.append(Charts([chart for chart in charts if chart.series], legend(drawn)))
        blocks.append(Note(_how_to_read(drawn)))
    return PageSection("training", "Training", blocks)


def _keys(runs: Sequence[RunRecord]) -> list[tuple[str, str, bool]]:
    """Curves to draw: key of metrics.jsonl, title, whether the axis may be logarithmic."""
    terms = list(dict.fromkeys(key for run in runs for line in run.training for key in line if key.endswith(_TERM)))
    total = [("loss", "loss, sum of the weighted terms", True)] if len(terms) > 1 else []
    weighted = [(term, f"{term.removesuffix(_TERM).replace('_', ' ')} term, weighted", True) for term in terms]
    return [*total, *weighted, *((key, title, key in _LOG) for key, title in _OTHERS.items())]


def _points(runs: Sequence[RunRecord], key: str) -> dict[str, list[tuple[float, float]]]:
    return {run.label: [(line["step"], line[key]) for line in run.training if is_number(line.get(key))] for run in runs}


def _how_to_read(runs: Sequence[RunRecord]) -> str:
    text = (
        "Losses are means since the previous log line, each term times its weight: compare a term between "
        "runs only if its weight is the same, and the sum only if all weights are."
    )
    if any(len(run.training) > MAX_POINTS for run in runs):
        text += f" Curves of more than {MAX_POINTS} points are averaged over neighbours."
    return text
