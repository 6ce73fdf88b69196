"""Schema of study files."""

from __future__ import annotations

import difflib
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from harness.config import EvalSet
from harness.config.evaluation import METRICS
from harness.config.section import Name, PathText, Section, Text, problem

Seed = Annotated[int, Field(ge=0, lt=2**32)]
Metric = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*/[a-z0-9_]+$")]
Sets = Annotated[tuple[EvalSet, ...], Field(strict=False, min_length=1)]


class Variant(Section):
    """Variant of the base recipe; one row of the results table."""

    name: Name = Field(description="Short name, also its key in results.json.")
    label: Text = Field(description="Its name in tables and figures.")
    kind: Literal["baseline", "method", "combination", "other"] = Field(
        description="baseline: what the others are compared with, exactly one; method: part of the order that is "
        "compared with the published one; combination, other: in the table, not part of that order."
    )
    set: dict[str, Any] = Field(
        default_factory=dict, description="Keys of the base recipe to change, such as {optim.lr: 2e-3}."
    )
    published: float | None = Field(None, description="The paper's number for it, in the paper's metric.")


class Tuning(Section):
    """Setting that is tuned for each variant, on the tuning sets."""

    key: Text = Field(description="Dotted key of the recipe, such as optim.lr.")
    values: Annotated[tuple[Any, ...], Field(strict=False, min_length=1)] = Field(description="Values to try.")
    seed: Seed = Field(0, description="Seed of these runs, and of the sweeps.")


class Sweep(Section):
    """Sensitivity of one variant to one setting: several values, one seed, on the tuning sets.

    If another value is better there than the variant's own, the variant at that value becomes a row of the final table.
    """

    variant: Name = Field(description="Name of the variant.")
    key: Text = Field(description="Dotted key of the recipe, such as loss.weights.fd.")
    values: Annotated[tuple[float, ...], Field(strict=False, min_length=2)] = Field(description="Values to try.")


class SetsConfig(Section):
    """Evaluation sets: held-out sets for choosing settings, others for the results."""

    tuning: Sets = Field(description="Sets for choosing settings and for sweeps.")
    final: Sets = Field(description="Sets of the final table; no setting is chosen on them.")


class Study(Section):
    """Content of a study file."""

    name: Name = Field(description="Short name; the default output folder is runs/study-NAME.")
    description: str = Field("", description="Purpose of the study, in a sentence.")
    base: PathText = Field(
        description="The recipe that all variants change: a file (relative to this one) or a shipped recipe's name."
    )
    set: dict[str, Any] = Field(default_factory=dict, description="Keys of the base recipe to change for all variants.")
    seeds: Annotated[tuple[Seed, ...], Field(strict=False, min_length=1)] = Field(
        description="Seeds of the final runs."
    )
    sets: SetsConfig = Field(description="Evaluation sets.")
    rank_by: Annotated[tuple[Metric, ...], Field(strict=False, min_length=1)] = Field(
        description="SET/METRIC, such as zeroshot/top1; variants are chosen and ranked by the mean of these."
    )
    headline: Metric = Field(description="The metric that the paper ranks by, shown next to the mean of rank_by.")
    similarity: Name = Field(
        description="The retrieval set on whose pairs student's and teacher's features are compared."
    )
    published_metric: Text = Field("published", description="Description of the variants' `published` numbers.")
    tune: Tuning | None = Field(None, description="Setting to tune for each variant; null: none.")
    variants: Annotated[tuple[Variant, ...], Field(strict=False, min_length=2)] = Field(description="The rows.")
    sweeps: Annotated[tuple[Sweep, ...], Field(strict=False)] = Field(
        (), description="Sensitivity to a setting, one sweep each."
    )

    @property
    def baseline(self) -> Variant:
        """The variant that the others are compared with."""
        return next(variant for variant in self.variants if variant.kind == "baseline")

    @property
    def methods(self) -> tuple[Variant, ...]:
        """The variants whose order is compared with the published one."""
        return tuple(variant for variant in self.variants if variant.kind == "method")

    def variant(self, name: str) -> Variant:
        """The variant of that name."""
        return next(variant for variant in self.variants if variant.name == name)

    @model_validator(mode="after")
    def _names_are_known(self) -> Study:
        names = [variant.name for variant in self.variants]
        duplicate = next((name for name in names if names.count(name) > 1), None)
        if duplicate is not None:
            raise problem(f"has two variants named {duplicate}", at=("variants",))
        baselines = [variant.name for variant in self.variants if variant.kind == "baseline"]
        if len(baselines) != 1:
            raise problem(
                f"must have exactly one of kind baseline, got {', '.join(baselines) or 'none'}", at=("variants",)
            )
        for number, sweep in enumerate(self.sweeps):
            if sweep.variant not in names:
                raise problem(
                    f"must be the name of a variant, got {sweep.variant!r}; known: {', '.join(names)}",
                    at=("sweeps", number, "variant"),
                )
        if len(set(self.seeds)) < len(self.seeds):
            raise problem(f"must differ, got {list(self.seeds)}", at=("seeds",))
        return self

    @model_validator(mode="after")
    def _metrics_are_measured(self) -> Study:
        for split, sets in (("tuning", self.sets.tuning), ("final", self.sets.final)):
            kinds = {item.name: item.kind for item in sets}
            for key, metric in [("headline", self.headline), *(("rank_by", metric) for metric in self.rank_by)]:
                name, _, what = metric.partition("/")
                known = METRICS.get(kinds.get(name, ""), ())
                if what not in known:
                    meant = [f"{item}/{one}" for item, kind in kinds.items() for one in METRICS[kind]]
                    near = difflib.get_close_matches(metric, meant, n=1)
                    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(meant)}"
                    raise problem(f"has {metric}, which is not measured on sets.{split}; {hint}", at=(key,))
            if kinds.get(self.similarity) != "retrieval":
                raise problem(
                    f"must be the name of a retrieval set, got {self.similarity!r}; in sets.{split} that is "
                    f"{_kind(kinds.get(self.similarity))}",
                    at=("similarity",),
                )
        return self


def _kind(kind: str | None) -> str:
    return f"a {kind} set" if kind else "not a set"
