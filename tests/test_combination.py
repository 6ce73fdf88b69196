"""CLIPKDLoss: a weighted sum that shares what its terms have in common and does nothing for a zero weight."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import kdlosses
from kdlosses.registry import get_term
from tests import strategies
from tests.problems import Problem
from tests.running import assert_equals_oracle, assert_same, build, run
from tests.tolerance import assert_close

TERMS = kdlosses.available_terms(without_options=True)
MIXED = Problem(student_dim=4, teacher_dim=6)
EVERY = dict.fromkeys(TERMS, 1.0)
WEIGHTS = st.dictionaries(st.sampled_from(TERMS), st.floats(0.01, 100.0), min_size=1)


@pytest.mark.filterwarnings("ignore:mfd is combined")
@given(weights=WEIGHTS, problem=strategies.problems(max_batch=4))
def test_value_and_gradients_of_any_sum(weights, problem):
    assert_equals_oracle("clip_kd", problem, weights=weights)


@pytest.mark.filterwarnings("ignore:mfd is combined")
@given(weights=WEIGHTS, problem=strategies.problems(same_width=True, max_batch=4))
@pytest.mark.slow
def test_value_and_gradients_of_any_released_sum(weights, problem):
    assert_equals_oracle("clip_kd", problem, "released", weights=weights)


def test_defaults_are_the_papers():
    assert kdlosses.CLIPKDLoss().weights == {"contrastive": 1.0, "crd": 1.0, "fd": 2000.0, "icl": 1.0}


@pytest.mark.parametrize("variant", ["paper", "released"])
@pytest.mark.parametrize("term", TERMS)
def test_a_sum_of_one_term_is_that_term(term, variant):
    problem = Problem()
    single, summed = (
        build(term, problem, variant=variant),
        build("clip_kd", problem, variant=variant, weights={term: 1}),
    )
    summed.load_state_dict(single.state_dict())
    assert_same(run(summed, problem.inputs()), run(single, problem.inputs()))


def test_terms_come_back_weighted_in_the_order_given():
    weights = {"icl": 3.0, "contrastive": 0.5, "fd": 2000.0}
    terms = build("clip_kd", MIXED, weights=weights)(**MIXED.inputs(), output_dict=True)
    plain = build("clip_kd", MIXED, weights=dict.fromkeys(weights, 1.0))(**MIXED.inputs(), output_dict=True)
    assert list(terms) == ["icl_loss", "contrastive_loss", "fd_loss"]
    for term, weight in weights.items():
        assert_close(terms[f"{term}_loss"], weight * plain[f"{term}_loss"])


@pytest.mark.parametrize("term", TERMS)
def test_a_zero_weight_computes_and_owns_nothing(term, monkeypatch):
    other = "crd" if term == "contrastive" else "contrastive"

    def never(*_):
        raise AssertionError(f"{term} was computed")

    monkeypatch.setattr(type(get_term(term)), "compute", never)
    loss = kdlosses.CLIPKDLoss({other: 1.0, term: 0.0}).double()
    assert not list(loss.parameters())
    assert list(loss(**MIXED.inputs(), output_dict=True)) == [f"{other}_loss"]
    with pytest.raises(AssertionError, match=f"{term} was computed"):
        kdlosses.CLIPKDLoss({term: 1.0}, **MIXED.dims).double()(**MIXED.inputs())


@pytest.mark.filterwarnings("ignore:mfd is combined")
def test_terms_share_their_layers_and_scales():
    loss = build("clip_kd", MIXED, weights=EVERY)
    assert {name.split(".")[0] for name, _ in loss.named_parameters()} == {
        "visual_proj",
        "text_proj",
        "cross_logit_scale",
        "image_logit_scale",
        "text_logit_scale",
        "visual_fusion_proj",
        "text_fusion_proj",
        "fusion_logit_scale",
    }
    shapes = {name: tuple(p.shape) for name, p in loss.named_parameters() if "fusion" not in name}
    assert shapes["visual_proj.weight"] == (6, 4)
    assert shapes["cross_logit_scale"] == ()


@pytest.mark.filterwarnings("ignore:mfd is combined")
def test_terms_share_their_relations():
    """One B x B product each, whatever terms read it.

    For the student, the projected student, the teacher, both cross relations, both vertical ones, the fusion, and the
    images of student and of teacher among themselves.
    """
    products = []

    class Count(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if function is torch.mm and result.shape == (5, 5):
                products.append(result)
            return result

    loss = build("clip_kd", MIXED, weights=EVERY, backend="dense")
    with Count():
        loss(**MIXED.inputs())
    assert len(products) == 10


def test_mfd_without_masks_warns():
    loss = build("clip_kd", MIXED, weights={"contrastive": 1.0, "mfd": 1.0})
    with pytest.warns(UserWarning, match="masked_image_features"):
        loss(**MIXED.inputs())


def test_masked_features_reach_mfd_alone():
    masked = MIXED.with_(seed=5).inputs()["image_features"]
    loss = build("clip_kd", MIXED, weights={"contrastive": 1.0, "fd": 1.0, "mfd": 1.0})
    terms = loss(**MIXED.inputs(), masked_image_features=masked, output_dict=True)
    same = loss(**MIXED.inputs(), masked_image_features=MIXED.inputs()["image_features"], output_dict=True)
    assert torch.equal(terms["contrastive_loss"], same["contrastive_loss"])
    assert torch.equal(terms["fd_loss"], same["fd_loss"])
    assert_close(same["mfd_loss"], same["fd_loss"])
    assert abs(terms["mfd_loss"] - terms["fd_loss"]) > 1e-3


def test_default_weights_belong_to_a_variant():
    paper, released = kdlosses.default_weights("paper"), kdlosses.default_weights("released")
    assert list(paper) == list(released) == kdlosses.available_terms()
    assert released["gd"] == 1e8
    assert paper["gd"] < 1e7
    assert {term: paper[term] for term in ("contrastive", "crd", "fd", "icl")} == kdlosses.CLIPKDLoss().weights
    with pytest.raises(ValueError, match="papper"):
        kdlosses.default_weights("papper")
