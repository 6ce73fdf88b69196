"""Scores of the runs' students and teachers, in percent by set and metric."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.report.comparison import METRICS
from harness.report.page.records import RunRecord
from harness.report.page.teachers import RunTeacher

Scores = dict[str, dict[str, float]]


def student_scores(run: RunRecord) -> Scores:
    """Student's scores at the end of training and by `clipkd eval` since; else of the last evaluation during it."""
    names = {run.summary.get("model"), run.folder.resolve().name, run.settings.get("name")}
    scores = {name: dict(values) for name, values in numbers(run.summary.get("metrics")).items()}
    for result in run.results:
        if result.own or result.model in names:
            mine = scores.setdefault(result.name, {})
            mine.update({metric: value for metric, value in result.metrics.items() if metric not in mine})
    return scores or (numbers(run.evaluations[-1]["eval"]) if run.evaluations else {})


def teacher_file_scores(run: RunRecord, teacher: RunTeacher) -> Scores:
    """Teacher's scores from result files in the run's folder."""
    names = (teacher.name, f"{teacher.name} ({teacher.role})")  # the second is `clipkd eval --with-teacher`'s
    scores: Scores = {}
    for result in run.results:
        if result.model in names:
            scores.setdefault(result.name, {}).update(result.metrics)
    return scores


def score_columns(scores: Mapping[str, Scores]) -> list[tuple[str, str]]:
    """Every (set, metric) that any of the models has, metrics in their usual order."""
    sets = dict.fromkeys(name for one in scores.values() for name in one)
    others = {metric: None for one in scores.values() for values in one.values() for metric in values}
    order = dict.fromkeys([*METRICS, *others])
    return [(name, m) for name in sets for m in order if any(m in one.get(name, {}) for one in scores.values())]


def metric_label(metric: str) -> str:
    """Display name of a metric."""
    return METRICS.get(metric, metric.replace("_", " "))


def headline(scores: Mapping[str, Scores]) -> list[tuple[str, str]]:
    """Main metrics, where there is room for few: those of the first set of each kind."""
    known = score_columns(scores)
    wanted = ("top1", "i2t_r1", "t2i_r1")
    return [found for metric in wanted if (found := next((c for c in known if c[1] == metric), None))]


def numbers(value: Any) -> Scores:
    """Extract the numbers of a mapping of mappings; anything else is dropped."""
    if not isinstance(value, dict):
        return {}
    return {
        str(name): {str(metric): float(number) for metric, number in values.items() if is_number(number)}
        for name, values in value.items()
        if isinstance(values, dict)
    }


def is_number(value: Any) -> bool:
    """Whether it is a finite number; JSON's true and NaN are not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")
