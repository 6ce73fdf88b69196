"""What a table or a figure is made of: models, each with its runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

Column = tuple[str, str]  # name of the evaluation set, name of the metric

METRICS = {
    "top1": "top-1",
    "top5": "top-5",
    **{f"{way}_r{k}": f"{way} R@{k}" for way in ("i2t", "t2i") for k in (1, 5, 10)},
}


@dataclass(frozen=True)
class RunResult:
    """One trained model: its metrics by set in percent, and what its training took (None: not trained here)."""

    metrics: Mapping[str, Mapping[str, float]]
    seed: int | None = None
    seconds: float | None = None
    images_per_second: float | None = None
    git_commit: str | None = None

    def value(self, column: Column) -> float | None:
        """The metric, or None where this run has none."""
        return self.metrics.get(column[0], {}).get(column[1])


class MetricRange(NamedTuple):
    """A metric over the runs of a model."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class ComparedModel:
    """A row of the comparison: one run, or one for each seed."""

    name: str
    label: str
    parameters: Mapping[str, int]
    runs: tuple[RunResult, ...]
    is_teacher: bool = False

    def values(self, column: Column) -> list[float]:
        """The metric of every run that has it."""
        return [value for run in self.runs if (value := run.value(column)) is not None]

    def metric_range(self, column: Column) -> MetricRange | None:
        """Mean, least and greatest over the runs; None where no run has the metric."""
        values = self.values(column)
        return MetricRange(sum(values) / len(values), min(values), max(values)) if values else None


def comparison_columns(models: Sequence[ComparedModel]) -> list[Column]:
    """Every metric of every set that any model has, in the order of METRICS within a set."""
    sets = list(dict.fromkeys(name for model in models for run in model.runs for name in run.metrics))
    return [
        (name, metric) for name in sets for metric in METRICS if any(model.values((name, metric)) for model in models)
    ]


def best_students(models: Sequence[ComparedModel], column: Column) -> set[str]:
    """Names of the students with the greatest mean; empty where there is nothing to compare."""
    means = {
        model.name: spread.mean for model in models if not model.is_teacher and (spread := model.metric_range(column))
    }
    return {name for name, mean in means.items() if mean == max(means.values())} if len(means) > 1 else set()
