"""Data of a comparison: models, each with one run or several seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

Column = tuple[str, str]  # (evaluation set, metric)

METRICS = {
    "top1": "top-1",
    "top5": "top-5",
    **{f"{way}_r{k}": f"{way} R@{k}" for way in ("i2t", "t2i") for k in (1, 5, 10)},
}


@dataclass(frozen=True)
class RunResult:
    """Result of one run: metrics by set in percent, and training time and speed (None if not trained here)."""

    metrics: Mapping[str, Mapping[str, float]]
    seed: int | None = None
    seconds: float | None = None
    images_per_second: float | None = None
    git_commit: str | None = None

    def value(self, column: Column) -> float | None:
        """The metric, or None if this run was not measured on it."""
        return self.metrics.get(column[0], {}).get(column[1])


class MetricRange(NamedTuple):
    """Mean, minimum and maximum of a metric over the runs of a model."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class ComparedModel:
    """Model in a comparison, with one run or one per seed."""

    name: str
    label: str
    parameters: Mapping[str, int]
    runs: tuple[RunResult, ...]
    is_teacher: bool = False

    def values(self, column: Column) -> list[float]:
        """Metric of every run that has it."""
        return [value for run in self.runs if (value := run.value(column)) is not None]

    def metric_range(self, column: Column) -> MetricRange | None:
        """Mean, minimum and maximum over the runs; None if no run has the metric."""
        values = self.values(column)
        return MetricRange(sum(values) / len(values), min(values), max(values)) if values else None


def comparison_columns(models: Sequence[ComparedModel]) -> list[Column]:
    """All (set, metric) columns of any model, in the order of METRICS within a set."""
    sets = list(dict.fromkeys(name for model in models for run in model.runs for name in run.metrics))
    return [
        (name, metric) for name in sets for metric in METRICS if any(model.values((name, metric)) for model in models)
    ]


def best_students(models: Sequence[ComparedModel], column: Column) -> set[str]:
    """Names of the students with the highest mean; empty for fewer than two students."""
    means = {
        model.name: spread.mean for model in models if not model.is_teacher and (spread := model.metric_range(column))
    }
    return {name for name, mean in means.items() if mean == max(means.values())} if len(means) > 1 else set()
