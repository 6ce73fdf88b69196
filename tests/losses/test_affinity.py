"""AffinityLoss: cross-entropy of the student's pair relations with the teacher's softmax."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from torch import Tensor

import kdlosses
from kdlosses import backends
from kdlosses.requests import Request
from kdlosses.tiles.program import Program, program_of
from tests import strategies
from tests.problems import STUDENT, TEACHER, Inputs, Problem
from tests.running import UPSTREAM, assert_equals_oracle, assert_gradcheck, leaves, run
from tests.tolerance import assert_close


def logits(inputs: Inputs, prefix: str = "") -> Tensor:
    image, text = (F.normalize(inputs[f"{prefix}{side}_features"], dim=1) for side in ("image", "text"))
    return inputs[f"{prefix}logit_scale"] * image @ text.T


def entropy(rows: Tensor) -> Tensor:
    return torch.distributions.Categorical(logits=rows).entropy().mean()


@pytest.mark.parametrize("variant", ["paper", "released"])
@given(problem=strategies.problems())
def test_value_and_gradients(variant, problem):
    assert_equals_oracle("affinity", problem, variant)


def test_gradcheck():
    assert_gradcheck("affinity", Problem(batch=3, student_dim=4, teacher_dim=3))


@given(problem=strategies.problems())
def test_it_is_crd_plus_the_teachers_entropy_with_the_gradients_of_crd(problem):
    inputs = problem.inputs()
    soft, kl = run(kdlosses.AffinityLoss(), inputs), run(kdlosses.CRDLoss(), inputs)
    table = logits(inputs, "dist_")
    assert_close(soft.value - kl.value, (entropy(table) + entropy(table.T)) / 2)
    for key in STUDENT:
        assert torch.equal(soft.grads[key], kl.grads[key])


@given(problem=strategies.problems())
def test_the_student_does_best_as_its_teacher_and_pays_the_entropy_there(problem):
    table, loss = logits(problem.inputs(), "dist_"), kdlosses.AffinityLoss()
    least = (entropy(table) + entropy(table.T)) / 2
    copied = {**problem.inputs(), **{key: problem.inputs()[f"dist_{key}"] for key in STUDENT}}
    assert_close(loss(**copied), least)
    assert loss(**problem.inputs()) > least - 1e-12


def test_a_certain_teacher_makes_it_the_contrastive_loss():
    inputs = Problem(batch=4).inputs()
    inputs["dist_image_features"] = inputs["dist_text_features"] = torch.eye(4, dtype=torch.float64)
    inputs["dist_logit_scale"] = torch.tensor(200.0, dtype=torch.float64)
    assert_close(kdlosses.AffinityLoss()(**inputs), kdlosses.CLIPLoss()(**inputs))


def test_it_is_the_distillation_term_of_open_clip():
    inputs = leaves(Problem().inputs(torch.float32))
    unit = [F.normalize(inputs[key], dim=1) if inputs[key].ndim else inputs[key] for key in (*STUDENT, *TEACHER)]
    _, theirs = open_clip.loss.DistillClipLoss()(*unit)
    theirs.backward()
    ours = run(kdlosses.AffinityLoss(), inputs)
    assert_close(ours.value, theirs.detach())
    for key in STUDENT:
        assert_close(ours.grads[key], UPSTREAM * inputs[key].grad)


def test_it_shares_one_pass_with_crd():
    programs: list[Program] = []

    class Watched:
        name = "watched"

        @staticmethod
        def unavailable() -> None:
            return None

        def evaluate(self, requests: Sequence[Request]) -> list[Any]:
            programs.append(program_of(requests))
            return backends.create("dense").evaluate(requests)

    inputs = Problem().inputs()
    both = run(kdlosses.CLIPKDLoss({"crd": 1.0, "contrastive": 1.0, "affinity": 1.0}, backend=Watched()), inputs)
    assert len(programs[0].jobs) == 1
    apart = [run(kdlosses.build(name), inputs) for name in ("crd", "contrastive", "affinity")]
    assert_close(both.value, sum(one.value for one in apart))
