"""Section on size and speed: parameters, FLOPs, latency, throughput, and accuracy against them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.report.page.blocks import Block, Charts, Note, PageSection, Table
from harness.report.page.chart import Chart, Series
from harness.report.page.formatting import millions, percent, plural, short
from harness.report.page.line_chart import file_stem
from harness.report.page.model_profiles import ModelProfile
from harness.report.page.scores import headline, metric_label

_PARTS = {"image": "image tower", "text": "text tower", "total": "both"}


def cost_section(models: Sequence[ModelProfile], notes: Sequence[str]) -> PageSection:
    """Section on size and speed.

    Args:
        models: teachers, then the runs' students.
        notes: reasons for missing parts.
    """
    blocks: list[Block] = [_table(models)]
    timed = [model for model in models if model.efficiency]
    if timed:
        blocks.append(Note(_conditions(timed)))
    blocks += [Note(text, "missing") for text in notes]
    charts = [chart for chart in _charts(models) if len(chart.series) > 1]
    if charts:
        blocks.append(Charts(charts, [(model.slot, model.label) for model in models]))
    return PageSection("cost", "Size and speed", blocks)


def _table(models: Sequence[ModelProfile]) -> Table:
    rows = [
        [f"{name}, parameters", *(millions(model.parameters.get(part)) for model in models)]
        for part, name in _PARTS.items()
    ]
    if any(model.efficiency for model in models):
        for tower, unit in (("image", "images/s"), ("text", "texts/s")):
            flops = [_of(model, tower, "flops") for model in models]
            rows.append([f"{tower} tower, GFLOPs", *(short(None if n is None else n / 1e9) for n in flops)])
            rows.append([f"{tower} tower, ms for one", *(short(_of(model, tower, "latency_ms")) for model in models)])
            rows.append([f"{tower} tower, {unit}", *(short(_of(model, tower, "per_second")) for model in models)])
    return Table("Cost of each model; the text tower includes the logit scale.", ["", *(m.label for m in models)], rows)


def _conditions(models: Sequence[ModelProfile]) -> str:
    """How speed was measured; speeds of different devices are not drawn together."""
    setups = dict.fromkeys(_place(model) for model in models)
    text = f"GFLOPs of one sample, a multiply-add counts as two. Speed: {'; '.join(setups)}."
    return text if len(setups) == 1 else f"{text} Setups differ, so speeds are not comparable and not drawn."


def _place(model: ModelProfile) -> str:
    about = model.efficiency
    threads = f", {plural(about['threads'], 'thread')}" if about.get("threads") else ""
    return f"{about.get('device')}{threads}, {about.get('precision')}, batches of {about.get('batch_size')}"


def _charts(models: Sequence[ModelProfile]) -> list[Chart]:
    found = headline({model.label: model.scores for model in models})
    charts = []
    for name, metric in found[:2]:
        what = f"{name} {metric_label(metric)}"
        charts.append(_scatter(models, name, metric, f"{what}, percent", "parameters of the image tower", "parameters"))
        if len({_place(model) for model in models if model.efficiency}) == 1:
            charts.append(_scatter(models, name, metric, f"{what}, percent", "images/s", "speed"))
    return charts


def _scatter(models: Sequence[ModelProfile], name: str, metric: str, title: str, x_label: str, kind: str) -> Chart:
    series, descriptions = [], []
    for model in models:
        x = model.parameters.get("image") if kind == "parameters" else _of(model, "image", "per_second")
        y = model.scores.get(name, {}).get(metric)
        if x and y is not None:
            series.append(Series(model.label, model.slot, [x], [y], "point"))
            shown = millions(x) if kind == "parameters" else f"{short(x)} images/s"
            descriptions.append(f"{model.label}: {percent(y)} percent at {shown}")
    alt = f"Scatter chart of {title} against {x_label}, logarithmic axis. {'; '.join(descriptions)}."
    return Chart(file_stem(f"{kind}-{name}-{metric}"), title, alt, f"{x_label} (log axis)", series, log_x=True)


def _of(model: ModelProfile, tower: str, key: str) -> float | None:
    part: Mapping[str, Any] = model.efficiency.get(tower) or {}
    return part.get(key)
