"""CrossKDLoss: the student's rows against the teacher's other side mimic the teacher's own relations."""

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
    assert_equals_oracle("cross_kd", problem, variant)


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_gradcheck(variant):
    assert_gradcheck("cross_kd", Problem(batch=3, student_dim=4, teacher_dim=3), variant)


@pytest.mark.parametrize(("variant", "parameter"), [("paper", math.log(20.0)), ("released", 20.0)])
def test_zero_once_features_and_temperature_agree(variant, parameter):
    inputs = student_is_teacher(Problem(scale=20.0).inputs())
    loss = kdlosses.CrossKDLoss(variant=variant).double()
    assert loss(**inputs) > 1e-3
    torch.nn.init.constant_(loss.cross_logit_scale, parameter)
    assert_close(loss(**inputs), 0.0)


@given(problem=strategies.problems(same_width=True))
def test_is_never_negative(problem):
    assert kdlosses.CrossKDLoss().double()(**problem.inputs()) > -1e-12


def test_does_not_depend_on_the_students_scale():
    inputs = Problem().inputs()
    assert_close(
        kdlosses.CrossKDLoss()(**inputs), kdlosses.CrossKDLoss()(**inputs | {"logit_scale": torch.tensor(3.0)})
    )
