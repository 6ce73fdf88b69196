"""Results of a study: the records of its runs, the score, and results.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from harness.errors import UserError
from harness.report import ComparedModel, RunResult, summarize
from harness.study.config import Study, Variant

Metrics = Mapping[str, Mapping[str, float]]
RunRecord = dict[str, Any]  # of one run, as `harness.study.study_run.train_and_measure` returns it
SIDES = ("image", "text")


def mean_score(metrics: Metrics, rank_by: Sequence[str]) -> float:
    """Mean of the metrics named SET/METRIC; variants are chosen and ranked by it.

    Raises:
        UserError: one of them was not measured.
    """
    return sum(metric_value(metrics, name) for name in rank_by) / len(rank_by)


def metric_value(metrics: Metrics, name: str) -> float:
    """The metric named SET/METRIC.

    Raises:
        UserError: it was not measured.
    """
    part, _, metric = name.partition("/")
    value = metrics[part].get(metric)
    if value is None:
        given = ", ".join(metrics[part])
        raise UserError(
            f"the set {part} is too small for {name}: it only gives {given}; use these in rank_by and headline"
        )
    return value


@dataclass(frozen=True)
class StudyResults:
    """Results of a finished study.

    Attributes:
        study: the schema, with the variants that the sweeps have added.
        teacher: its name, parameters and metrics on the final sets; None if no variant has a teacher.
        chosen: the tuned settings of each variant.
        better: name of a swept variant -> name of the variant at the sweep's best value, where that is another one.
        tuning: the runs that the settings were chosen from.
        final: the runs of every variant with every seed, on the final sets.
        sweeps: the runs of each sweep, on the tuning sets.
        about: command, date, versions, commit, device.
    """

    study: Study
    teacher: dict[str, Any] | None
    chosen: dict[str, dict[str, Any]]
    better: dict[str, str]
    tuning: Sequence[RunRecord]
    final: Sequence[RunRecord]
    sweeps: Sequence[Sequence[RunRecord]]
    about: dict[str, Any]

    def runs(self, variant: Variant) -> list[RunRecord]:
        """The variant's final runs, in the order of the seeds."""
        return [run for run in self.final if run["variant"] == variant.name]

    def scores(self, variant: Variant) -> list[float]:
        """The variant's mean of rank_by on the final sets, one value per seed."""
        return [mean_score(run["metrics"], self.study.rank_by) for run in self.runs(variant)]

    def tuning_score(self, variant: Variant) -> float | None:
        """The variant's score on the tuning sets with its chosen settings; None if nothing was tuned."""
        chosen = self.chosen[variant.name]
        runs = [run for run in self.tuning if run["variant"] == variant.name and run["set"] == chosen]
        return mean_score(runs[0]["metrics"], self.study.rank_by) if runs else None

    def values(self, variant: Variant, metric: str) -> list[float]:
        """The metric SET/METRIC of the variant, one value per seed."""
        return [metric_value(run["metrics"], metric) for run in self.runs(variant)]

    def similarity(self, variant: Variant, measure: str) -> float | None:
        """Cosine or alignment with the teacher, mean over seeds, images and texts; None if it was not measured."""
        keys = [f"{side}_{measure}" for side in SIDES]
        measured = [run["similarity"] or {} for run in self.runs(variant)]
        values = [similarities[key] for similarities in measured for key in keys if key in similarities]
        return mean(values) if values else None

    def ranked(self) -> list[Variant]:
        """The variants by mean score over seeds, best first."""
        return sorted(self.study.variants, key=lambda variant: -mean(self.scores(variant)))

    def model(self, variant: Variant) -> ComparedModel:
        """The variant as a model of `harness.report`'s comparison."""
        records = self.runs(variant)
        keys = ("seconds", "images_per_second", "git_commit")
        runs = [RunResult(run["metrics"], run["seed"], **{key: run[key] for key in keys}) for run in records]
        return ComparedModel(variant.name, variant.label, records[0]["parameters"], tuple(runs))

    def commits(self) -> list[str]:
        """Git commits of the runs, in the order of the runs' dates."""
        runs = sorted(self._all_runs(), key=_date)
        return list(dict.fromkeys(run["git_commit"] or "no checkout" for run in runs))

    def training_hours(self) -> float:
        """Sum of the runs' training times; a run that two phases share counts once."""
        return sum({run["key"]: run["seconds"] for run in self._all_runs()}.values()) / 3600

    def _all_runs(self) -> list[RunRecord]:
        return [*self.tuning, *self.final, *(run for sweep in self.sweeps for run in sweep)]


def _date(run: RunRecord) -> str:
    return run["date"]


def as_json(results: StudyResults) -> dict[str, Any]:
    """Content of results.json, in JSON types; metrics in percent."""
    study = results.study
    rows = {}
    for place, variant in enumerate(results.ranked(), start=1):
        scores = results.scores(variant)
        means = summarize([results.model(variant)], {})["models"][variant.name]
        rows[variant.name] = {
            "label": variant.label,
            "kind": variant.kind,
            "place": place,
            "set": {**variant.set, **results.chosen[variant.name]},
            "published": variant.published,
            "score": {"mean": mean(scores), "least": min(scores), "greatest": max(scores)},
            **{name: means[name] for name in ("metrics", "range", "parameters")},
            "cosine": results.similarity(variant, "cosine"),
            "alignment": results.similarity(variant, "alignment"),
        }
    return {
        **results.about,
        "unit": "percent",
        "commits_of_runs": results.commits(),
        "hours_of_runs": round(results.training_hours(), 2),
        "study": study.model_dump(mode="json"),
        "teacher": results.teacher,
        "variants": rows,
        "better": results.better,
        "runs": {
            "tuning": list(results.tuning),
            "final": list(results.final),
            "sweeps": [
                {"variant": sweep.variant, "key": sweep.key, "runs": list(runs)}
                for sweep, runs in zip(study.sweeps, results.sweeps, strict=True)
            ],
        },
    }
