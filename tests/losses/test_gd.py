"""GDLoss: the gradients of the student's CLIP loss meet those of the teacher's."""

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
@given(problem=strategies.problems(max_batch=6))
def test_value_and_gradients(variant, problem):
    assert_equals_oracle("gd", problem, variant)


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_gradcheck(variant):
    assert_gradcheck("gd", Problem(batch=3, student_dim=4, teacher_dim=3, scale=3.0, teacher_scale=4.0), variant)


def test_one_pair_has_no_gradient_to_match():
    assert_close(kdlosses.GDLoss()(**Problem(batch=1).inputs()), 0.0)


def test_each_side_uses_its_own_scale():
    inputs = student_is_teacher(Problem().inputs())
    assert kdlosses.GDLoss()(**inputs | {"dist_logit_scale": torch.tensor(1.0)}) > 1e-3


def test_a_teacher_without_gradient_leaves_the_students_own_clip_gradient():
    """A teacher that separates its pairs perfectly at a high scale has zero gradient; GD is then ||student's||^2."""
    problem = Problem(batch=4, student_dim=4, teacher_dim=4)
    teacher = {
        "dist_image_features": torch.eye(4),
        "dist_text_features": torch.eye(4),
        "dist_logit_scale": torch.tensor(1e4),
    }
    inputs = problem.inputs()
    image, text = (F.normalize(inputs[key]).requires_grad_() for key in ("image_features", "text_features"))
    logits, target = inputs["logit_scale"] * image @ text.T, torch.arange(4)
    clip = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    expected = sum(g.square().mean() for g in torch.autograd.grad(clip, [image, text]))
    teacher = {key: value.double() for key, value in teacher.items()}
    assert_close(kdlosses.GDLoss()(**inputs | teacher), expected)


def test_the_released_gd_is_far_smaller_than_the_papers():
    """Hence weights belong to a variant: 1e8 suits the released gradient alone."""
    inputs = Problem(batch=9).inputs()
    assert kdlosses.GDLoss()(**inputs) > 1e3 * kdlosses.GDLoss(variant="released")(**inputs)
