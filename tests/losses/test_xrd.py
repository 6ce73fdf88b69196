"""XRDLoss: student images to teacher texts, and student texts to teacher images, are made alike."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given

import kdlosses
from kdlosses.relation import Relation
from tests import strategies
from tests.problems import Inputs, Problem
from tests.running import UPSTREAM, assert_equals_oracle, build, run
from tests.tolerance import assert_close

both_variants = pytest.mark.parametrize("variant", ["paper", "released"])


def with_modalities_alike(inputs: Inputs) -> Inputs:
    return inputs | {
        "text_features": inputs["image_features"],
        "dist_text_features": inputs["dist_image_features"],
    }


@both_variants
@given(problem=strategies.problems())
def test_value_and_gradients(variant, problem):
    assert_equals_oracle("xrd", problem, variant)


@both_variants
@given(problem=strategies.problems())
def test_it_vanishes_with_its_gradient_where_both_relations_agree(variant, problem):
    """Without P, as it has one for images and one for texts."""
    inputs = with_modalities_alike(problem.with_(teacher_dim=problem.student_dim).inputs())
    outcome = run(build("xrd", problem.with_(teacher_dim=problem.student_dim), variant=variant), inputs)
    assert_close(outcome.value, 0.0)
    for key in ("image_features", "text_features", "param.cross_logit_scale"):
        torch.testing.assert_close(outcome.grads[key], torch.zeros_like(outcome.grads[key]), rtol=0, atol=1e-8)


@given(problem=strategies.problems())
def test_it_is_never_negative(problem):
    assert build("xrd", problem)(**problem.inputs()) > -1e-12


@given(problem=strategies.problems())
def test_images_and_texts_may_change_places(problem):
    """As long as the widths need no P."""
    problem = problem.with_(teacher_dim=problem.student_dim)
    loss, inputs = build("xrd", problem), problem.inputs()
    pairs = (("image_features", "text_features"), ("dist_image_features", "dist_text_features"))
    swapped = {new: inputs[old] for a, b in pairs for new, old in ((a, b), (b, a))}
    assert_close(loss(**inputs | swapped), loss(**inputs))


@both_variants
def test_gradients_are_those_with_targets_held_fixed(variant):
    """Finite differences with the relations that are targets made of the unmoved student."""
    problem = Problem(batch=3, student_dim=4, teacher_dim=3)
    loss, inputs = build("xrd", problem, variant=variant), problem.inputs()
    found, targets, constant = run(loss, inputs), [], Relation.constant
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Relation, "constant", lambda relation: targets.append(constant(relation)) or targets[-1])
        loss(**inputs)
        fixed = itertools.cycle([Relation(one.queries, one.keys, one.scale) for one in targets])
        patch.setattr(Relation, "constant", lambda _: next(fixed))
        for key in ("image_features", "text_features"):
            step, direction = 1e-6, torch.randn_like(inputs[key])
            ends = [loss(**inputs | {key: inputs[key] + sign * step * direction}).item() for sign in (1, -1)]
            slope = (ends[0] - ends[1]) / (2 * step)
            assert (found.grads[key] * direction).sum().item() / UPSTREAM == pytest.approx(slope, rel=1e-5)


def test_beside_icl_no_matrix_is_made_twice():
    products = []

    class Count(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if function is torch.mm and result.shape == (5, 5):
                products.append(result)
            return result

    weights = {"icl": 1.0, "xrd": 1.0, "vrd": 1.0}
    loss = kdlosses.CLIPKDLoss(weights, student_dim=6, teacher_dim=6, backend="dense")
    inputs = {key: value.requires_grad_() for key, value in Problem(batch=5).inputs().items()}
    with Count():
        loss(**inputs)
    assert len(products) == 4


def test_scales_of_the_models_do_not_matter():
    loss, inputs = build("xrd", Problem()), Problem().inputs()
    scales = {"logit_scale": torch.tensor(3.0), "dist_logit_scale": torch.tensor(5.0)}
    assert torch.equal(loss(**inputs), loss(**inputs | scales))
