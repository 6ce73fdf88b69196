"""results.json: everything a study found, with what is needed to find it again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from harness.report import ComparedModel, RunResult, summarize
from harness.study.config import Study, Variant
from harness.study.score import score, value

Result = dict[str, Any]  # of one run, as `harness.study.work` measures it
SIDES = ("image", "text")


@dataclass(frozen=True)
class Findings:
    """A finished study.

    Attributes:
        study: what was asked.
        teacher: its parameters and its metrics on the final sets; None where no variant has one.
        chosen: the tuned settings of each variant.
        better: for a variant whose sweep found a better value, the name of the variant with that value.
        tuning: the runs they were chosen from.
        final: every variant with every seed, on the final sets.
        sweeps: the runs of each sweep, on the tuning sets.
        about: command, date, versions, commit, device.
    """

    study: Study
    teacher: dict[str, Any] | None
    chosen: dict[str, dict[str, Any]]
    better: dict[str, str]
    tuning: Sequence[Result]
    final: Sequence[Result]
    sweeps: Sequence[Sequence[Result]]
    about: dict[str, Any]

    def runs(self, variant: Variant) -> list[Result]:
        """Its final runs, in the order of the seeds."""
        return [result for result in self.final if result["variant"] == variant.name]

    def scores(self, variant: Variant) -> list[float]:
        """The mean of rank_by, for each seed."""
        return [score(result["metrics"], self.study.rank_by) for result in self.runs(variant)]

    def values(self, variant: Variant, metric: str) -> list[float]:
        """One metric SET/METRIC, for each seed."""
        return [value(result["metrics"], metric) for result in self.runs(variant)]

    def similarity(self, variant: Variant, what: str) -> float | None:
        """Mean over seeds, images and texts of the cosine or the alignment with the teacher; None where unknown."""
        found = [result["similarity"] or {} for result in self.runs(variant)]
        numbers = [one[f"{side}_{what}"] for one in found for side in SIDES if f"{side}_{what}" in one]
        return mean(numbers) if numbers else None

    def ranked(self) -> list[Variant]:
        """The variants, best first by the mean over seeds."""
        return sorted(self.study.variants, key=lambda variant: -mean(self.scores(variant)))

    def model(self, variant: Variant) -> ComparedModel:
        """The variant as the reports of other commands know a model."""
        runs = self.runs(variant)
        kept = ("seconds", "images_per_second", "git_commit")
        made = [RunResult(run["metrics"], run["seed"], **{name: run[name] for name in kept}) for run in runs]
        return ComparedModel(variant.name, variant.label, runs[0]["parameters"], tuple(made))

    def commits(self) -> list[str]:
        """The commits that the runs were made with, in the order of their dates."""
        runs = sorted((*self.tuning, *self.final, *(run for sweep in self.sweeps for run in sweep)), key=_date)
        return list(dict.fromkeys(run["git_commit"] or "no checkout" for run in runs))

    def cpu_hours(self) -> float:
        """What all runs took together, each counted once."""
        runs = [*self.tuning, *self.final, *(run for sweep in self.sweeps for run in sweep)]
        return sum({run["key"]: run["seconds"] for run in runs}.values()) / 3600


def _date(run: Result) -> str:
    return run["date"]


def as_json(found: Findings) -> dict[str, Any]:
    """The content of results.json, in JSON types; metrics in percent."""
    study = found.study
    rows = {}
    for place, variant in enumerate(found.ranked(), start=1):
        scores = found.scores(variant)
        means = summarize([found.model(variant)], {})["models"][variant.name]
        rows[variant.name] = {
            "label": variant.label,
            "kind": variant.kind,
            "place": place,
            "set": {**variant.set, **found.chosen[variant.name]},
            "published": variant.published,
            "score": {"mean": mean(scores), "least": min(scores), "greatest": max(scores)},
            **{name: means[name] for name in ("metrics", "range", "parameters")},
            "cosine": found.similarity(variant, "cosine"),
            "alignment": found.similarity(variant, "alignment"),
        }
    return {
        **found.about,
        "unit": "percent",
        "commits_of_runs": found.commits(),
        "hours_of_runs": round(found.cpu_hours(), 2),
        "study": study.model_dump(mode="json"),
        "teacher": found.teacher,
        "variants": rows,
        "better": found.better,
        "runs": {
            "tuning": list(found.tuning),
            "final": list(found.final),
            "sweeps": [
                {"variant": sweep.variant, "key": sweep.key, "runs": list(runs)}
                for sweep, runs in zip(study.sweeps, found.sweeps, strict=True)
            ],
        },
    }
