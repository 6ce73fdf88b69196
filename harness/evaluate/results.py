"""Metric names and result files.

clip_benchmark's JSON files hold fractions, as its own tools expect; `evaluate` returns percent.
"""

import math
from pathlib import Path
from typing import Any, Literal

from pydantic import field_validator

from harness.config import EvalSet
from harness.config.explain import got
from harness.files import write_json
from harness.privacy import absolute_paths, hide_paths
from harness.records.reading import MaybeNan, Schema, Text, read_record

Metrics = dict[str, float]
RECALLS = (1, 5, 10)
SetKind = Literal["zeroshot", "retrieval", "selection"]
TASKS: dict[SetKind, str] = {  # clip_benchmark's names
    "zeroshot": "zeroshot_classification",
    "retrieval": "zeroshot_retrieval",
    "selection": "image_caption_selection",
}
# Short name: clip_benchmark's name. Its "image retrieval" looks for the image of a text.
SHORT = {
    "zeroshot": {
        "top1": "acc1",
        "top5": "acc5",
        "mean_recall": "mean_per_class_recall",
        "map": "mean_average_precision",  # the only metric of multi-label sets
    },
    "retrieval": {
        **{f"i2t_r{k}": f"text_retrieval_recall@{k}" for k in RECALLS},
        **{f"t2i_r{k}": f"image_retrieval_recall@{k}" for k in RECALLS},
    },
    "selection": {name: name for name in ("acc", "image_acc", "text_acc")},
}


def in_percent(item: EvalSet, metrics: Metrics) -> Metrics:
    """Metrics in percent under their short names; those undefined for the set (top-5 of four classes) are left out."""
    named = {short: metrics.get(name, math.nan) for short, name in SHORT[item.kind].items()}
    return {short: 100 * value for short, value in named.items() if not math.isnan(value)}


def write_result(path: Path, item: EvalSet, model: str, metrics: Metrics, pretrained: str = "") -> None:
    """Write clip_benchmark's result file; NaN, which is not JSON, becomes null."""
    values = {name: None if math.isnan(value) else value for name, value in metrics.items()}
    write_json(
        path,
        {
            "dataset": _dataset(item),
            "model": hide_paths(model, absolute_paths(model)),
            "pretrained": hide_paths(pretrained, absolute_paths(pretrained)),
            "task": TASKS[item.kind],
            "metrics": values,
            "language": "en",
        },
    )


def _dataset(item: EvalSet) -> str:
    """Dataset name as clip_benchmark writes it; with another protocol, the set's own name, which says so."""
    return item.dataset if item.dataset and item.protocol == "all" else f"wds/{item.name}"


class BenchmarkResult(Schema):
    """A result file, ours or stock clip_benchmark's, which knows of more metrics and writes NaN as such."""

    dataset: Text
    model: Text
    metrics: dict[Text, Any]

    @field_validator("metrics")
    @classmethod
    def _are_numbers(cls, metrics: dict[str, Any]) -> dict[str, Any]:
        known = {name for names in SHORT.values() for name in names.values()}
        for name in known & metrics.keys():
            value = metrics[name]
            if isinstance(value, bool) or not isinstance(value, int | float | None) or math.isinf(value or 0):
                raise ValueError(f"metrics.{name} must be a finite number or null, got {got(value)}")
        return metrics


class OwnResult(BenchmarkResult):
    """A result file that `write_result` has written."""

    metrics: dict[Text, MaybeNan | None]


def read_result(path: Path) -> Metrics:
    """Metrics of a result file, as clip_benchmark computed them (fractions).

    Raises:
        Unreadable: it is damaged.
    """
    metrics = read_record(path, OwnResult, "delete it to evaluate again").metrics
    return {name: math.nan if value is None else value for name, value in metrics.items()}
