"""Every loss on problems worth a backend's while, with the oracle's outcome computed once for all backends."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import torch

import kdlosses
from kdlosses.backends.contract import Backend
from tests.backends.subjects import Subject
from tests.problems import Inputs, Problem
from tests.running import Outcome, assert_same, assert_teacher_untouched, build, rounding_floor, run, run_oracle

NAMES = kdlosses.available_losses(without_options=True)
# A loss for each kind of request: softmaxes with their teachers and distances, gradients, sigmoids, layers of its own.
KINDS = ["clip_kd", "gd", "sigmoid_kd", "afd"]
VARIANTS = ("paper", "released")
SAME = Problem()
MIXED = Problem(student_dim=4, teacher_dim=6)
# No two alike: an answer handed to the wrong term changes the sum.
EVERY = tuple((term, 0.5 + number) for number, term in enumerate(kdlosses.available_terms(without_options=True)))


@dataclass(frozen=True)
class Case:
    """One loss on one problem; `weights` are for clip_kd."""

    name: str
    problem: Problem
    variant: str = "paper"
    masked: bool = False
    weights: tuple[tuple[str, float], ...] | None = None

    @property
    def possible(self) -> bool:
        """The released code's fusion layer has the wrong shape for different widths."""
        fuses = self.name == "afd" or "afd" in dict(self.weights or ())
        return not (fuses and self.variant == "released" and self.problem.student_dim != self.problem.teacher_dim)

    def gentle(self) -> Case:
        """With scales at which float32 can be held element by element: the rounding of GD grows with their square."""
        scales = {key: min(getattr(self.problem, key), 5.0) for key in ("scale", "teacher_scale")}
        return replace(self, problem=self.problem.with_(**scales))

    def inputs(self, dtype: torch.dtype) -> Inputs:
        inputs = self.problem.inputs(dtype)
        if self.masked:
            other = self.problem.with_(seed=self.problem.seed + 7).inputs(dtype)
            inputs["masked_image_features"] = other["image_features"]
        return inputs

    def loss(self, backend: str | Backend, dtype: torch.dtype) -> kdlosses.DistillLoss:
        keywords = {} if self.weights is None else {"weights": dict(self.weights)}
        return build(self.name, self.problem, variant=self.variant, dtype=dtype, backend=backend, **keywords)

    def outcome(self, tested: Subject) -> Outcome:
        """What the backend makes of it, back on the CPU."""
        loss = self.loss(tested.backend, tested.dtype).to(tested.device)
        found = run(loss, tested.place(self.inputs(tested.dtype)))
        return Outcome(found.value.cpu(), {key: None if g is None else g.cpu() for key, g in found.grads.items()})


@cache
def expected(case: Case, dtype: torch.dtype) -> Outcome:
    """The oracle's outcome, in float64, for the numbers as `dtype` holds them."""
    params = {key: value.detach() for key, value in case.loss("dense", dtype).named_parameters()}
    weights = None if case.weights is None else dict(case.weights)
    return run_oracle(case.name, case.inputs(dtype), params, case.variant, weights)


def assert_equals_oracle(case: Case, tested: Subject) -> None:
    """Value, every student and parameter gradient, and no teacher gradient."""
    case = case.gentle() if tested.dtype == torch.float32 else case
    outcome = case.outcome(tested)
    assert outcome.value.dtype == tested.dtype
    is_exact = tested.dtype == torch.float64
    floor = rounding_floor(case.name, case.problem, case.variant) if is_exact else 0.0
    assert_same(outcome, expected(case, tested.dtype), tested.dtype, floor)
    assert_teacher_untouched(outcome)
