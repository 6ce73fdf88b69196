"""SigLIPLoss: every image-text pair of the batch is a pair or is none, by a sigmoid each."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from open_clip.loss import SigLipLoss

import kdlosses
from tests import strategies
from tests.problems import STUDENT, Problem
from tests.running import assert_equals_oracle, assert_gradcheck
from tests.tolerance import assert_close

OWN = (*STUDENT, "logit_bias")
BIASES = st.sampled_from([0.0, -10.0]) | st.floats(-20.0, 20.0)
EYE = torch.eye(5, dtype=torch.float64)


@pytest.mark.parametrize("variant", ["paper", "released"])
@given(problem=strategies.problems(), bias=BIASES)
def test_value_and_gradients(variant, problem, bias):
    assert_equals_oracle("siglip", problem.with_(bias=bias), variant)


@pytest.mark.parametrize("bias", [-10.0, 0.5])
def test_gradcheck(bias):
    assert_gradcheck("siglip", Problem(batch=3, student_dim=4, bias=bias))


@given(problem=strategies.problems(), bias=BIASES)
def test_it_is_open_clips(problem, bias):
    found = []
    for loss in (kdlosses.SigLIPLoss(), SigLipLoss()):
        image, text, scale, number = (problem.with_(bias=bias).inputs()[key].requires_grad_() for key in OWN)
        value = loss(F.normalize(image), F.normalize(text), logit_scale=scale, logit_bias=number)
        found.append([value, *torch.autograd.grad(value, [image, text, scale, number])])
    for ours, theirs in zip(*found, strict=True):
        assert_close(ours.detach(), theirs.detach())


def test_its_dict_has_one_term():
    inputs = Problem().inputs()
    terms = kdlosses.SigLIPLoss()(**inputs, output_dict=True)
    assert list(terms) == ["siglip_loss"]
    assert torch.equal(terms["siglip_loss"], kdlosses.SigLIPLoss()(*(inputs[k] for k in STUDENT), logit_bias=-3.0))


def test_orthogonal_pairs_have_a_closed_form():
    """Five pairs with a cosine of 1, and for each image four texts with a cosine of 0."""
    expected = math.log1p(math.exp(-(3.0 - 2.0))) + 4 * math.log1p(math.exp(-2.0))
    assert_close(kdlosses.SigLIPLoss()(EYE, EYE, 3.0, logit_bias=-2.0), expected)


def test_images_and_texts_are_interchangeable():
    image, text, scale, bias = (Problem().inputs()[key] for key in OWN)
    loss = kdlosses.SigLIPLoss()
    assert_close(loss(image, text, scale, logit_bias=bias), loss(text, image, scale, logit_bias=bias))


def test_the_bias_rises_while_pairs_are_rarer_than_the_sigmoids_say():
    """Its gradient is the mean over images of the sum of p less the one pair."""
    for number, sign in ((2.0, 1), (-8.0, -1)):
        bias = torch.tensor(number, dtype=torch.float64, requires_grad=True)
        kdlosses.SigLIPLoss()(EYE, EYE, 3.0, logit_bias=bias).backward()
        p = torch.sigmoid(3.0 * EYE + number)
        assert_close(bias.grad, p.sum(1).mean() - 1)
        assert bias.grad.sign() == sign


@pytest.mark.parametrize("backend", ["dense", "chunked"])
def test_certain_pairs_keep_their_digits(backend):
    """At a scale of 100 both kinds of error are e^-50, which float32 loses where 1 - p is taken as a difference."""
    rows = torch.eye(5)
    value = kdlosses.SigLIPLoss(backend=backend)(rows, rows, 100.0, logit_bias=-50.0)
    assert value.item() == pytest.approx(5 * math.exp(-50.0), rel=1e-5)
