"""CLIPLoss: the symmetric cross-entropy of a batch of pairs."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given

import kdlosses
from tests import strategies
from tests.problems import STUDENT, Problem
from tests.running import assert_equals_oracle, assert_gradcheck
from tests.tolerance import assert_close

VARIANTS = ["paper", "released"]


@pytest.mark.parametrize("variant", VARIANTS)
@given(problem=strategies.problems())
def test_value_and_gradients(variant, problem):
    assert_equals_oracle("contrastive", problem, variant)


def test_gradcheck():
    assert_gradcheck("contrastive", Problem(batch=3, student_dim=4))


def test_needs_only_the_student():
    inputs = Problem().inputs()
    student = [inputs[key] for key in STUDENT]
    assert_close(kdlosses.CLIPLoss()(*student), kdlosses.CLIPLoss()(**inputs))


def test_identical_rows_cost_the_logarithm_of_the_batch():
    rows = torch.ones(7, 4, dtype=torch.float64)
    assert_close(kdlosses.CLIPLoss()(rows, rows, 50.0), math.log(7.0))


def test_orthogonal_pairs_have_a_closed_form():
    rows = torch.eye(5, dtype=torch.float64)
    assert_close(kdlosses.CLIPLoss()(rows, rows, 3.0), math.log(math.exp(3.0) + 4) - 3.0)


def test_images_and_texts_are_interchangeable():
    image, text, scale = (Problem().inputs()[key] for key in STUDENT)
    assert_close(kdlosses.CLIPLoss()(image, text, scale), kdlosses.CLIPLoss()(text, image, scale))
