"""ICLLoss: the student's rows as queries against the teacher's other side."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given

import kdlosses
from tests import strategies
from tests.problems import Problem, student_is_teacher
from tests.running import assert_equals_oracle, assert_gradcheck
from tests.tolerance import assert_close


@pytest.mark.parametrize("variant", ["paper", "released"])
@given(problem=strategies.problems())
def test_value_and_gradients(variant, problem):
    assert_equals_oracle("icl", problem, variant)


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_gradcheck(variant):
    assert_gradcheck("icl", Problem(batch=3, student_dim=4, teacher_dim=3), variant)


@pytest.mark.parametrize(("variant", "scale"), [("paper", 1 / 0.07), ("released", math.log(1 / 0.07))])
def test_with_the_student_as_teacher_it_is_clip(variant, scale):
    inputs = student_is_teacher(Problem().inputs())
    expected = kdlosses.CLIPLoss()(**inputs | {"logit_scale": scale})
    assert_close(kdlosses.ICLLoss(variant=variant).double()(**inputs), expected, torch.float32)


def test_the_students_image_meets_the_teachers_text():
    """An image tower equal to the teacher's and a text tower that is noise: only one direction is solved."""
    inputs = Problem(batch=4, student_dim=4, teacher_dim=4).inputs()
    eye = torch.eye(4, dtype=torch.float64)
    inputs |= {
        "image_features": eye,
        "dist_text_features": eye,
        "text_features": eye.flip(0),
        "dist_image_features": eye,
    }
    scale = 1 / 0.07
    solved, missed = math.log(math.exp(scale) + 3) - scale, math.log(math.exp(scale) + 3)
    assert_close(kdlosses.ICLLoss().double()(**inputs), (solved + missed) / 2, torch.float32)


def test_does_not_depend_on_either_models_scale():
    inputs = Problem().inputs()
    other = inputs | {"logit_scale": torch.tensor(3.0), "dist_logit_scale": torch.tensor(2.0)}
    assert_close(kdlosses.ICLLoss()(**inputs), kdlosses.ICLLoss()(**other))
