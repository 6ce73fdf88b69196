"""Content of summary.json: all results, with what is needed to reproduce them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from harness.report.comparison import ComparedModel, comparison_columns


def summarize(models: Sequence[ComparedModel], about: Mapping[str, Any]) -> dict[str, Any]:
    """Summarize a comparison in JSON types.

    Args:
        models: the compared models.
        about: command, seeds, versions, git commit, device.

    Returns:
        `about`, and under `models` for each its parameters, its metrics by set in percent (mean over the runs, with
        `range` [min, max]), and every run with its seed, metrics, seconds and images_per_second.
    """
    return {**about, "unit": "percent", "models": {model.name: _model(model) for model in models}}


def _model(model: ComparedModel) -> dict[str, Any]:
    metrics: dict[str, dict[str, float]] = {}
    ranges: dict[str, dict[str, list[float]]] = {}
    for name, metric in comparison_columns([model]):
        found = model.metric_range((name, metric))
        assert found is not None
        metrics.setdefault(name, {})[metric] = found.mean
        ranges.setdefault(name, {})[metric] = [found.low, found.high]
    return {
        "parameters": dict(model.parameters),
        "metrics": metrics,
        "range": ranges,
        "runs": [asdict(run) for run in model.runs],
    }
