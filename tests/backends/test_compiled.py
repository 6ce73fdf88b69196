"""The engine as an operator, called without a compiler: the same answers, gradients and refusals as without it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from kdlosses.requests import Request
from kdlosses.tiles import function
from kdlosses.tiles.compiled import evaluate_opaquely
from kdlosses.tiles.engine import TorchEngine
from kdlosses.tiles.layout import RequestLayout
from tests.backends.cases import EVERY, KINDS, MIXED, NAMES, VARIANTS, Case
from tests.grid import grid
from tests.problems import TEACHER
from tests.running import leaves, run, zero_if_none

# Whole matrices and ragged tiles, kept and made again.
ENGINES = {
    "whole": TorchEngine(None, keeps=True),
    "kept": TorchEngine(2, keeps=True),
    "again": TorchEngine(2, keeps=False),
}


@dataclass(frozen=True)
class Operator:
    """A backend that always calls the operator, or never."""

    engine: TorchEngine
    always: bool = True
    name = "operator"

    @staticmethod
    def unavailable() -> str | None:
        return None

    def evaluate(self, requests: Sequence[Request]) -> list[Any]:
        return (evaluate_opaquely if self.always else function.evaluate)(requests, self.engine)


@grid(["name"], name=[*NAMES, "every"], variant=VARIANTS, engine=ENGINES)
def test_values_and_gradients_are_the_same_to_the_last_bit(name, variant, engine):
    every = EVERY if name == "every" else None
    case = Case("clip_kd" if every else name, MIXED, variant, masked=True, weights=every)
    if not case.possible:
        case = Case(case.name, MIXED.with_(student_dim=6), variant, masked=True, weights=every)
    found, wanted = (
        run(case.loss(Operator(ENGINES[engine], always), torch.float64), case.inputs(torch.float64))
        for always in (True, False)
    )
    assert torch.equal(found.value, wanted.value)
    for key, grad in wanted.grads.items():
        assert grad is None or torch.equal(zero_if_none(found.grads[key], grad), grad), key


@grid(name=[*KINDS, "crd", "cross_kd"], engine=ENGINES)
def test_what_is_written_to_before_the_backward_pass_is_refused_or_not_read(name, engine):
    loss = Case(name, MIXED).loss(Operator(ENGINES[engine]), torch.float64)
    wanted = written_to(loss, None)
    for key in MIXED.inputs():
        try:
            found = written_to(loss, key)
        except RuntimeError as error:
            assert "modified by an inplace operation" in str(error)
        else:
            assert key not in ("image_features", "text_features") and torch.equal(found, wanted)


def written_to(loss: torch.nn.Module, key: str | None) -> torch.Tensor:
    """The student's gradients where an input is multiplied after the loss was called."""
    held = leaves(MIXED.inputs())
    given = {name: value * 1 for name, value in held.items()}
    value = loss(**given)
    if key is not None:
        with torch.no_grad():
            given[key].mul_(2)
    value.backward()
    return torch.cat([held["image_features"].grad, held["text_features"].grad])


@pytest.mark.parametrize("name", KINDS)
def test_a_second_derivative_is_refused(name):
    held = leaves(MIXED.inputs())
    value = Case(name, MIXED).loss(Operator(ENGINES["kept"]), torch.float64)(**held)
    (gradient,) = torch.autograd.grad(value, held["text_features"], create_graph=True)
    with pytest.raises(RuntimeError, match="a loss of kdlosses cannot be differentiated again"):
        gradient.square().sum().backward()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_teacher_may_come_from_inference_mode(engine):
    loss, plain = Case("clip_kd", MIXED).loss(Operator(ENGINES[engine]), torch.float64), MIXED.inputs()
    with torch.inference_mode():
        teacher = {key: plain[key].clone() for key in TEACHER}
    image = plain["image_features"].requires_grad_()
    (wanted,) = torch.autograd.grad(loss(**plain), image)
    (found,) = torch.autograd.grad(loss(**plain | teacher), image)
    assert torch.equal(found, wanted)


@grid(name=KINDS, engine=ENGINES)
def test_a_compiler_is_told_the_shapes_that_come(name, engine):
    seen: list[tuple[Any, ...]] = []

    class Watched(Operator):
        def evaluate(self, requests):
            layout = RequestLayout(requests)
            seen.append((layout.tensors, layout.numbers, layout.shares, self.engine.size, self.engine.keeps))
            return super().evaluate(requests)

    Case(name, MIXED).loss(Watched(ENGINES[engine]), torch.float64)(**MIXED.inputs())
    tensors, *settings = seen[0]
    tensors = [tensor.detach() for tensor in tensors]
    torch.library.opcheck(torch.ops.kdlosses.answers.default, (tensors, *settings), test_utils=["test_faketensor"])
