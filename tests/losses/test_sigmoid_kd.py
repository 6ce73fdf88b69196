"""SigmoidKDLoss: binary cross-entropy with the sigmoids of a teacher; and what the published form does instead."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import kdlosses
from tests import strategies
from tests.problems import Inputs, Problem, student_is_teacher
from tests.running import assert_equals_oracle, assert_gradcheck, run
from tests.tolerance import assert_close

BIASES = st.sampled_from([0.0, -10.0]) | st.floats(-20.0, 20.0)
SHARES = st.floats(1e-6, 1 - 1e-6).filter(lambda q: abs(q - 0.5) > 1e-3)


def sigmoids(inputs: Inputs, prefix: str = "") -> Tensor:
    image, text = (F.normalize(inputs[f"{prefix}{side}_features"]) for side in ("image", "text"))
    return torch.sigmoid(inputs[f"{prefix}logit_scale"] * image @ text.T + inputs[f"{prefix}logit_bias"])


@pytest.mark.parametrize("variant", ["paper", "released"])
@given(problem=strategies.problems(), bias=BIASES, teacher_bias=BIASES)
def test_value_and_gradients(variant, problem, bias, teacher_bias):
    assert_equals_oracle("sigmoid_kd", problem.with_(bias=bias, teacher_bias=teacher_bias), variant)


@pytest.mark.parametrize("biases", [(-10.0, -12.0), (0.5, -1.0)])
def test_gradcheck(biases):
    assert_gradcheck(
        "sigmoid_kd", Problem(batch=3, student_dim=4, teacher_dim=3, bias=biases[0], teacher_bias=biases[1])
    )


@given(problem=strategies.problems(same_width=True), bias=st.floats(-20.0, 5.0))
def test_its_minimum_is_the_teacher_and_the_value_there_its_entropy(problem, bias):
    inputs = problem.with_(bias=bias, teacher_bias=bias + 1).inputs()
    q = sigmoids(inputs, "dist_")
    entropy = (torch.special.entr(q) + torch.special.entr(1 - q)).sum(1).mean()
    assert kdlosses.SigmoidKDLoss()(**inputs) > entropy - 1e-9
    # The student's features, scale and bias are made the teacher's.
    turned = {key.removeprefix("dist_"): value for key, value in inputs.items() if key.startswith("dist_")}
    outcome = run(kdlosses.SigmoidKDLoss(), student_is_teacher(inputs | turned))
    assert_close(outcome.value, entropy)
    for key in ("image_features", "text_features", "logit_scale", "logit_bias"):
        torch.testing.assert_close(outcome.grads[key], torch.zeros_like(outcome.grads[key]), rtol=0, atol=1e-8)


def test_a_teacher_that_is_certain_of_the_pairs_leaves_the_siglip_loss():
    inputs = Problem().inputs()
    eye = torch.eye(5, dtype=torch.float64)
    certain = {"dist_image_features": eye, "dist_text_features": eye, "dist_logit_scale": 200.0}
    value = kdlosses.SigmoidKDLoss()(**inputs | certain | {"dist_logit_bias": -100.0})
    assert_close(value, kdlosses.SigLIPLoss()(**inputs))


def of_one_pair(z: Tensor, q: float) -> Tensor:
    """Our loss for one pair at logit `z`, all of it bias, and a teacher that gives it `q`."""
    image, text = torch.eye(2, dtype=torch.float64).split(1)  # a cosine of 0
    pair = {"image_features": image, "text_features": text, "dist_image_features": image, "dist_text_features": text}
    scales = {"logit_scale": 1.0, "dist_logit_scale": 1.0}
    return kdlosses.SigmoidKDLoss()(**pair, **scales, logit_bias=z, dist_logit_bias=math.log(q / (1 - q)))


def as_published(z: Tensor, q: float) -> Tensor:
    """MobileCLIP2's DistillSigLipLoss for one pair."""
    return -F.logsigmoid((2 * q - 1) * z)


def value_and_slope(loss, z: float, q: float) -> tuple[float, float]:
    leaf = torch.tensor(z, dtype=torch.float64, requires_grad=True)
    value = loss(leaf, q)
    (slope,) = torch.autograd.grad(value, leaf)
    return value.item(), slope.item()


@given(q=SHARES)
def test_the_published_form_has_no_finite_optimum(q):
    """Whatever the teacher gives but 1/2: towards one infinity it falls and falls, and its slope never vanishes."""
    side = math.copysign(1.0, q - 0.5)
    values, slopes = zip(
        *(value_and_slope(as_published, side * z, q) for z in (-5.0, 0.0, 5.0, 50.0, 500.0)), strict=True
    )
    assert all(first > second for first, second in pairwise(values))
    assert all(side * slope < 0 for slope in slopes)
    # Past the teacher's own logit too, where a student should stay.
    at_teacher, slope = value_and_slope(as_published, math.log(q / (1 - q)), q)
    assert side * slope < 0
    assert value_and_slope(as_published, 2 * math.log(q / (1 - q)), q)[0] < at_teacher


@given(q=SHARES)
def test_ours_has_its_optimum_at_the_teachers_logit(q):
    best = math.log(q / (1 - q))
    value, slope = value_and_slope(of_one_pair, best, q)
    assert value == pytest.approx(-q * math.log(q) - (1 - q) * math.log(1 - q), rel=1e-9)
    assert abs(slope) < 1e-12
    for distance in (0.5, 5.0, 50.0, 500.0):
        for side in (-1, 1):
            farther, slope = value_and_slope(of_one_pair, best + side * distance, q)
            assert farther > value
            assert side * slope > 0, "it pulls back"


@pytest.mark.parametrize("backend", ["dense", "chunked"])
def test_several_teachers_are_their_averaged_sigmoids(backend):
    """Binary cross-entropy is linear in q: the mean of the losses is the loss to the mean."""
    problems = [Problem(teacher_dim=width, teacher_bias=bias, seed=width) for width, bias in ((6, -2.0), (3, -9.0))]
    student = {k: v.requires_grad_() for k, v in Problem().inputs().items() if not k.startswith("dist_")}
    taught = [{k: v for k, v in p.inputs().items() if k.startswith("dist_")} for p in problems]
    loss = kdlosses.MultiTeacherLoss(
        {"sigmoid_kd": 1.0, "siglip": 2.0}, student_dim=6, teacher_dims=(6, 3), teacher_weights=(1, 3), backend=backend
    )
    terms = loss(**student, **{key: [one[key] for one in taught] for key in taught[0]}, output_dict=True)
    p = sigmoids(student)
    q = sum(w * sigmoids(one, "dist_") for w, one in zip((0.25, 0.75), taught, strict=True))
    expected = F.binary_cross_entropy(p, q, reduction="none").sum(1).mean()
    assert_close(terms["sigmoid_kd_loss"].detach(), expected.detach())
    assert_close(terms["siglip_loss"].detach(), 2 * kdlosses.SigLIPLoss()(**student).detach())
    leaves = list(student.values())
    found, wanted = (
        torch.autograd.grad(one, leaves, retain_graph=True) for one in (terms["sigmoid_kd_loss"], expected)
    )
    for got, gradient in zip(found, wanted, strict=True):
        assert_close(got, gradient)


def test_a_teacher_without_a_bias_is_named_among_several():
    student = {k: v for k, v in Problem().inputs().items() if not k.startswith("dist_")}
    taught = {k: [v, v] for k, v in Problem().inputs().items() if k.startswith("dist_")}
    settings = {"student_dim": 6, "teacher_dims": (6, 6)}
    with pytest.raises(ValueError, match=r"teacher 1: .* dist_logit_bias, which is missing"):
        kdlosses.MultiTeacherLoss({"sigmoid_kd": 1.0}, **settings)(
            **student | taught | {"dist_logit_bias": [0.0, None]}
        )
    softmax = kdlosses.MultiTeacherLoss({"crd": 1.0}, **settings)
    assert torch.equal(softmax(**student | taught | {"dist_logit_bias": [0.0, None]}), softmax(**student | taught))


class Count(TorchDispatchMode):
    """Products that make five by five logits, forward and backward."""

    def __init__(self) -> None:
        super().__init__()
        self.products = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.products += function.overloadpacket is torch.ops.aten.mm and result.shape == (5, 5)
        return result


@pytest.mark.parametrize("backend", ["dense", "chunked"])
def test_the_siglip_loss_beside_it_costs_no_product(backend):
    products = []
    for weights in ({"sigmoid_kd": 1.0}, {"siglip": 1.0, "sigmoid_kd": 1.0}):
        inputs = {key: value.requires_grad_() for key, value in Problem().inputs().items()}
        with Count() as count:
            kdlosses.CLIPKDLoss(weights, backend=backend)(**inputs).backward()
        products.append(count.products)
    assert products[0] == products[1] == (2 if backend == "dense" else 4)


def test_dense_makes_logits_once_for_sigmoids_and_softmaxes():
    weights = dict.fromkeys(("siglip", "sigmoid_kd", "contrastive", "crd"), 1.0)
    with Count() as count:
        kdlosses.CLIPKDLoss(weights, backend="dense")(**Problem().inputs())
    assert count.products == 2


def test_dense_keeps_its_logits_for_a_bias_alone():
    inputs = Problem().inputs()
    inputs["logit_bias"].requires_grad_()
    with Count() as count:
        kdlosses.SigmoidKDLoss(backend="dense")(**inputs).backward()
    assert count.products == 2
