"""FDLoss: mean squared error of unit rows."""

from __future__ import annotations

import pytest
import torch.nn.functional as F
from hypothesis import given

import kdlosses
from tests import strategies
from tests.problems import Problem
from tests.running import assert_equals_oracle, assert_gradcheck, build
from tests.tolerance import assert_close


@pytest.mark.parametrize("variant", ["paper", "released"])
@given(problem=strategies.problems())
def test_value_and_gradients(variant, problem):
    assert_equals_oracle("fd", problem, variant)


@pytest.mark.parametrize("teacher_dim", [4, 3])
def test_gradcheck(teacher_dim):
    assert_gradcheck("fd", Problem(batch=3, student_dim=4, teacher_dim=teacher_dim))


def test_is_the_cosine_distance_divided_by_the_width():
    """Which is why its weight grows with D: ||a - b||^2 = 2 - 2 cos for unit rows."""
    inputs = Problem(student_dim=5, teacher_dim=5).inputs()
    image = F.cosine_similarity(inputs["image_features"], inputs["dist_image_features"])
    text = F.cosine_similarity(inputs["text_features"], inputs["dist_text_features"])
    assert_close(kdlosses.FDLoss()(**inputs), ((2 - 2 * image).mean() + (2 - 2 * text).mean()) / 5)


def test_opposite_rows_are_the_worst():
    inputs = Problem(student_dim=5, teacher_dim=5).inputs()
    inputs |= {f"dist_{key}": -inputs[key] for key in ("image_features", "text_features")}
    assert_close(kdlosses.FDLoss()(**inputs), 8 / 5)


def test_equal_widths_need_no_projection():
    assert not list(kdlosses.FDLoss(student_dim=6, teacher_dim=6).parameters())


def test_a_projection_for_images_and_one_for_texts():
    shapes = {name: tuple(p.shape) for name, p in build("fd", Problem(student_dim=4, teacher_dim=6)).named_parameters()}
    assert shapes == {
        "visual_proj.weight": (6, 4),
        "visual_proj.bias": (6,),
        "text_proj.weight": (6, 4),
        "text_proj.bias": (6,),
    }
