"""CRDLoss: KL from the teacher's pair relations to the student's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given

import kdlosses
from tests import strategies
from tests.problems import Problem, student_is_teacher
from tests.running import assert_equals_oracle, assert_gradcheck
from tests.tolerance import assert_close


@pytest.mark.parametrize("variant", ["paper", "released"])
@given(problem=strategies.problems())
def test_value_and_gradients(variant, problem):
    assert_equals_oracle("crd", problem, variant)


def test_gradcheck():
    assert_gradcheck("crd", Problem(batch=3, student_dim=4, teacher_dim=3))


@given(problem=strategies.problems())
def test_is_never_negative(problem):
    assert kdlosses.CRDLoss()(**problem.inputs()) > -1e-12


def test_equals_soft_cross_entropy_less_the_teachers_entropy():
    inputs = Problem(teacher_dim=4).inputs()
    student = inputs["logit_scale"] * F.normalize(inputs["image_features"]) @ F.normalize(inputs["text_features"]).T
    teacher = F.normalize(inputs["dist_image_features"]) @ F.normalize(inputs["dist_text_features"]).T
    teacher = inputs["dist_logit_scale"] * teacher

    def direction(target, logits):
        entropy = torch.distributions.Categorical(logits=target).entropy().mean()
        return F.cross_entropy(logits, target.softmax(1)) - entropy

    expected = (direction(teacher, student) + direction(teacher.T, student.T)) / 2
    assert_close(kdlosses.CRDLoss()(**inputs), expected)


def test_divergence_runs_from_the_teacher():
    """KL is not symmetric: swapping the roles changes the value."""
    inputs = Problem().inputs()
    swapped = {("dist_" + key).replace("dist_dist_", ""): value for key, value in inputs.items()}
    assert abs(kdlosses.CRDLoss()(**inputs) - kdlosses.CRDLoss()(**swapped)) > 1e-3


def test_only_the_scale_differs():
    inputs = student_is_teacher(Problem().inputs())
    assert_close(kdlosses.CRDLoss()(**inputs), 0.0)
    assert kdlosses.CRDLoss()(**inputs | {"dist_logit_scale": torch.tensor(40.0)}) > 1e-2
