"""VRDLoss: contrast within each modality across the models, the texts' relations as targets of the images'."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from torch.autograd.gradcheck import GradcheckError

import kdlosses
from tests import strategies
from tests.problems import Problem
from tests.running import assert_equals_oracle, assert_gradcheck, build, run
from tests.tolerance import assert_close

both_variants = pytest.mark.parametrize("variant", ["paper", "released"])


@both_variants
@given(problem=strategies.problems())
def test_value_and_gradients(variant, problem):
    assert_equals_oracle("vrd", problem, variant)


def test_it_is_two_clip_losses_and_a_kl():
    """With plain functions: CLIPLoss between student and teacher of each modality, and half the KLs between them."""
    inputs = Problem().inputs()
    image, text, teacher_image, teacher_text = (
        F.normalize(inputs[key], dim=1)
        for key in ("image_features", "text_features", "dist_image_features", "dist_text_features")
    )
    clip, scale = kdlosses.CLIPLoss(), math.exp(math.log(1 / 0.07))
    expected = clip(image, teacher_image, scale) + clip(text, teacher_text, scale)
    images, texts = scale * image @ teacher_image.T, scale * text @ teacher_text.T
    for learner, target in ((images, texts), (images.T, texts.T)):
        divergence = F.kl_div(learner.log_softmax(1), target.log_softmax(1), reduction="batchmean", log_target=True)
        expected = expected + divergence / 2
    assert_close(kdlosses.VRDLoss().double()(**inputs), expected, torch.float32)


@both_variants
def test_gradcheck_of_what_is_no_target(variant):
    """Finite differences do not know that a target is constant, so the texts stay as they are."""
    problem = Problem(batch=3, student_dim=4, teacher_dim=3)
    loss, inputs = build("vrd", problem, variant=variant), problem.inputs()
    fixed = dict(loss.named_parameters())

    def call(*values: torch.Tensor) -> torch.Tensor:
        own = dict(zip(("image_logit_scale", "visual_proj.weight", "visual_proj.bias"), values[1:], strict=True))
        return torch.func.functional_call(loss, fixed | own, (), inputs | {"image_features": values[0]})

    leaves = [inputs["image_features"], loss.image_logit_scale, loss.visual_proj.weight, loss.visual_proj.bias]
    leaves = [leaf.detach().clone().requires_grad_() for leaf in leaves]
    assert torch.autograd.gradcheck(call, tuple(leaves), atol=1e-6, rtol=1e-4)


def test_the_texts_learn_from_their_own_contrast_alone():
    inputs = Problem().inputs()
    other = Problem(seed=8).inputs()["image_features"]
    first, second = (run(build("vrd", Problem()), inputs | {"image_features": rows}) for rows in (other, -other))
    assert not torch.equal(first.value, second.value)
    for key in ("text_features", "param.text_logit_scale"):
        assert torch.equal(first.grads[key], second.grads[key])


def test_no_kl_where_both_modalities_agree():
    inputs = Problem().inputs()
    inputs |= {"text_features": inputs["image_features"], "dist_text_features": inputs["dist_image_features"]}
    both = kdlosses.CLIPLoss()(inputs["image_features"], inputs["dist_image_features"], 1 / 0.07)
    assert_close(kdlosses.VRDLoss().double()(**inputs), 2 * both, torch.float32)


def test_scales_of_the_models_do_not_matter():
    loss, inputs = build("vrd", Problem()), Problem().inputs()
    scales = {"logit_scale": torch.tensor(3.0), "dist_logit_scale": torch.tensor(5.0)}
    assert torch.equal(loss(**inputs), loss(**inputs | scales))


def test_several_teachers_have_vertical_scales_of_their_own():
    loss = kdlosses.MultiTeacherLoss({"vrd": 1.0}, student_dim=4, teacher_dims=[6, 3])
    assert {f"teachers.{number}.{side}_logit_scale" for number in (0, 1) for side in ("image", "text")} == {
        name for name, _ in loss.named_parameters() if "scale" in name
    }


def test_gradcheck_is_of_use():
    """What the test above leaves out: with the texts free too, differences must not agree with the gradients."""
    with pytest.raises(GradcheckError):
        assert_gradcheck("vrd", Problem(batch=3, student_dim=4, teacher_dim=3))
