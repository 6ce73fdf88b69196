"""Run a loss, or its oracle, on the same numbers and hold value and every gradient against each other."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import kdlosses
from tests import oracles
from tests.problems import BIASES, STUDENT, TEACHER, Inputs, Problem
from tests.tolerance import assert_close, rounding_of_gd

UPSTREAM = 3.7  # an upstream gradient other than 1 catches a backward that forgets it
DEFAULT_WEIGHTS = {"contrastive": 1.0, "crd": 1.0, "fd": 2000.0, "icl": 1.0}


@dataclass(frozen=True)
class Outcome:
    """A value and the gradients of UPSTREAM * value: inputs by keyword, parameters as `param.<name>`."""

    value: Tensor
    grads: dict[str, Tensor | None]


class Averaged(nn.Module):
    """A loss whose values by pair are averaged; its parameters keep their names."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self._loss = [loss]
        for name, parameter in loss.named_parameters():
            self.register_parameter(name.replace("_orig_mod.", "").replace(".", "/"), parameter)

    def forward(self, **inputs: Tensor) -> Tensor:
        return self._loss[0](**inputs).mean()


def build(
    name: str, problem: Problem, *, variant: str = "paper", dtype: torch.dtype = torch.float64, **kw
) -> nn.Module:
    """The loss with its parameters moved off their initial values, so that no bias is zero."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(problem.seed + 1)
        loss = kdlosses.build(name, variant=variant, **problem.dims, **kw)
        for parameter in loss.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return loss.to(dtype)


def leaves(inputs: Inputs) -> Inputs:
    """Copies that ask for a gradient, the teacher's too: it must not get one."""
    return {name: value.detach().clone().requires_grad_(value.is_floating_point()) for name, value in inputs.items()}


def run(loss: nn.Module, inputs: Inputs, forward_in: AbstractContextManager | None = None) -> Outcome:
    """Forward, within `forward_in` where given, and backward of UPSTREAM * value."""
    inputs = leaves(inputs)
    loss.zero_grad(set_to_none=True)
    with forward_in or nullcontext():
        value = loss(**inputs)
    if value.requires_grad:
        (UPSTREAM * value).backward()
    grads = {name: leaf.grad for name, leaf in inputs.items()}
    return Outcome(value.detach(), grads | {f"param.{name}": p.grad for name, p in loss.named_parameters()})


def run_oracle(
    name: str,
    inputs: Inputs,
    params: Inputs,
    variant: str,
    weights: dict[str, float] | None = None,
    oracle: Callable[[oracles.World], Tensor] | None = None,
) -> Outcome:
    """As `run`, of the oracle called ``name``, or of ``oracle``."""
    inputs = leaves({key: value.double() for key, value in inputs.items()})
    params = leaves({key: value.double() for key, value in params.items()})
    world = oracles.World(
        *(inputs[key] for key in STUDENT),
        *(inputs[key].detach() for key in TEACHER),
        params=params,
        variant=variant,
        masked_image=inputs.get("masked_image_features"),
        bias=inputs["logit_bias"],
        teacher_bias=inputs["dist_logit_bias"].detach(),
    )
    if name == "clip_kd":
        value = oracles.clip_kd(world, weights or DEFAULT_WEIGHTS)
    else:
        value = (oracle or oracles.ORACLES[name])(world)
    (UPSTREAM * value).backward()
    grads = {key: leaf.grad for key, leaf in inputs.items()}
    return Outcome(value.detach(), grads | {f"param.{key}": leaf.grad for key, leaf in params.items()})


def assert_same(actual: Outcome, expected: Outcome, dtype: torch.dtype = torch.float64, floor: float = 0.0) -> None:
    """Equal value and gradients within the table; a missing student gradient counts as zero.

    ``floor`` is for gradients; see `assert_close`.
    """
    assert actual.grads.keys() == expected.grads.keys()
    assert_close(actual.value, expected.value, dtype, "value")
    for name, wanted in expected.grads.items():
        got = actual.grads[name]
        if got is None and wanted is None:
            continue
        like = got if wanted is None else wanted
        assert_close(zero_if_none(got, like), zero_if_none(wanted, like), dtype, f"gradient of {name}", floor)


def rounding_floor(name: str, problem: Problem, variant: str) -> float:
    """For `assert_same` in float64: what rounding alone may make of gradients that identical rows cancel."""
    if name != "gd" or variant != "paper" or not problem.duplicates:
        return 0.0
    return UPSTREAM * rounding_of_gd(problem.scale, problem.teacher_scale)


def zero_if_none(gradient: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if gradient is None else gradient


def assert_teacher_untouched(outcome: Outcome) -> None:
    assert all(outcome.grads[name] is None for name in (*TEACHER, BIASES[1])), "the teacher got a gradient"


def assert_equals_oracle(
    name: str,
    problem: Problem,
    variant: str = "paper",
    *,
    masked: bool = False,
    weights: dict[str, float] | None = None,
) -> None:
    """Value, every student and parameter gradient, and no teacher gradient."""
    keywords = {} if weights is None else {"weights": weights}
    loss, inputs = build(name, problem, variant=variant, **keywords), problem.inputs()
    if masked:
        inputs["masked_image_features"] = problem.with_(seed=problem.seed + 7).inputs()["image_features"]
    outcome = run(loss, inputs)
    params = {key: value.detach() for key, value in loss.named_parameters()}
    floor = rounding_floor(name, problem, variant)
    assert_same(outcome, run_oracle(name, inputs, params, variant, weights), floor=floor)
    assert_teacher_untouched(outcome)


def assert_gradcheck(name: str, problem: Problem, variant: str = "paper", **keywords: object) -> None:
    """Finite differences in float64 for the student's inputs and for the loss's own parameters."""
    loss, inputs = build(name, problem, variant=variant, **keywords), problem.inputs()
    names, owned = [key for key, _ in loss.named_parameters()], (*STUDENT, BIASES[0])

    def call(*values: Tensor) -> Tensor:
        student = dict(zip(owned, values, strict=False))
        params = dict(zip(names, values[len(owned) :], strict=True))
        return torch.func.functional_call(loss, params, (), inputs | student)

    student = [inputs[key].clone().requires_grad_() for key in owned]
    params = [p.detach().clone().requires_grad_() for p in loss.parameters()]
    assert torch.autograd.gradcheck(call, (*student, *params), atol=1e-6, rtol=1e-4)
