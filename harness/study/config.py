"""The schema of a study file."""

from __future__ import annotations

import difflib
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from harness.config import EvalSet
from harness.config.evaluation import METRICS
from harness.config.section import Name, Section, Text, problem

Seed = Annotated[int, Field(ge=0, lt=2**32)]
Metric = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*/[a-z0-9_]+$")]
Sets = Annotated[tuple[EvalSet, ...], Field(strict=False, min_length=1)]


class Variant(Section):
    """One row of the study's table."""

    name: Name = Field(description="Short name, also that of its rows in results.json.")
    label: Text = Field(description="What tables and figures call it.")
    kind: Literal["baseline", "method", "combination", "other"] = Field(
        description="baseline = what the others are compared with, exactly one; method = one of those whose order is "
        "compared with the published one; combination and other = shown, not in that order."
    )
    set: dict[str, Any] = Field(
        default_factory=dict, description="Keys of the base recipe to change, such as {optim.lr: 2e-3}."
    )
    published: float | None = Field(None, description="What the paper reports for it, in its own metric.")


class Tuning(Section):
    """A setting that every variant chooses for itself, on the tuning sets."""

    key: Text = Field(description="Dotted key of the recipe, such as optim.lr.")
    values: Annotated[tuple[Any, ...], Field(strict=False, min_length=1)] = Field(description="What is tried.")
    seed: Seed = Field(0, description="Seed of these runs, and of the sweeps.")


class Sweep(Section):
    """One variant with several values of one setting: one seed, on the tuning sets.

    Where a value is better there than the variant's own, the variant with that value gets a row of its own in the final
    table.
    """

    variant: Name = Field(description="Name of the variant.")
    key: Text = Field(description="Dotted key of the recipe, such as loss.weights.fd.")
    values: Annotated[tuple[float, ...], Field(strict=False, min_length=2)] = Field(description="What it is set to.")


class SetsConfig(Section):
    """Held-out sets for choosing, and others for the result."""

    tuning: Sets = Field(description="Sets on which settings are chosen and sweeps are measured.")
    final: Sets = Field(description="Sets of the final table; nothing is chosen on them.")


class Study(Section):
    """A whole study."""

    name: Name = Field(description="Short name; the default output folder is runs/study-NAME.")
    description: str = Field("", description="What the study is for, in a sentence.")
    base: Text = Field(
        description="The recipe that all variants change: a file (seen from this one) or a shipped name."
    )
    set: dict[str, Any] = Field(default_factory=dict, description="Keys of it to change for all variants.")
    seeds: Annotated[tuple[Seed, ...], Field(strict=False, min_length=1)] = Field(
        description="Seeds of the final runs."
    )
    sets: SetsConfig = Field(description="Held-out sets.")
    rank_by: Annotated[tuple[Metric, ...], Field(strict=False, min_length=1)] = Field(
        description="SET/METRIC, such as zeroshot/top1; variants are chosen and ranked by the mean of these."
    )
    headline: Metric = Field(description="The one metric that the paper ranks by, shown beside the mean of rank_by.")
    similarity: Name = Field(
        description="The retrieval set on whose pairs student's and teacher's features are compared."
    )
    published_metric: Text = Field("published", description="What the variants' `published` numbers are.")
    tune: Tuning | None = Field(None, description="A setting that every variant chooses for itself; null = none.")
    variants: Annotated[tuple[Variant, ...], Field(strict=False, min_length=2)] = Field(description="The rows.")
    sweeps: Annotated[tuple[Sweep, ...], Field(strict=False)] = Field(
        (), description="Sensitivity to one setting each."
    )

    @property
    def baseline(self) -> Variant:
        """What the others are compared with."""
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
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise problem(f"has two variants named {twice}", at=("variants",))
        bases = [variant.name for variant in self.variants if variant.kind == "baseline"]
        if len(bases) != 1:
            raise problem(f"needs exactly one of kind baseline, got {', '.join(bases) or 'none'}", at=("variants",))
        for number, sweep in enumerate(self.sweeps):
            if sweep.variant not in names:
                raise problem(
                    f"names no variant, got {sweep.variant!r}; known: {', '.join(names)}",
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
                    raise problem(f"has {metric}, which sets.{split} does not give; {hint}", at=(key,))
            if kinds.get(self.similarity) != "retrieval":
                raise problem(
                    f"must name a retrieval set, which has captions; sets.{split} has {self.similarity!r} as "
                    f"{kinds.get(self.similarity) or 'no set'}",
                    at=("similarity",),
                )
        return self
