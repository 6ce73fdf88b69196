"""reduction="none": each pair's own value, with the mean and the gradients of reduction="mean"."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import kdlosses
from kdlosses import Computation, Term, registry, term_checks
from kdlosses.requests import KL, mean_of_directions
from tests.backends.cases import EVERY
from tests.distributed.cases import multi_teacher, of_teachers
from tests.problems import Inputs, Problem, permuted
from tests.running import Averaged, assert_same, build, run
from tests.tolerance import assert_close

MIXED = Problem(student_dim=4, teacher_dim=6)
SETTINGS = [{"variant": "paper"}, {"variant": "released"}, {"variant": "paper", "backend": "chunked"}]
pytestmark = pytest.mark.filterwarnings("ignore:mfd is combined")


def every(problem: Problem, variant: str, **keywords: Any) -> torch.nn.Module:
    """All terms in one loss, each with a weight of its own, so that none can stand in for another."""
    weights = {term: weight for term, weight in EVERY if term != "afd" or variant == "paper"}
    return build("clip_kd", problem, variant=variant, weights=weights, **keywords)


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda one: "-".join(one.values()))
def test_their_mean_is_the_loss_and_their_gradients_its(settings):
    inputs = MIXED.inputs()
    found = run(Averaged(every(MIXED, reduction="none", **settings)), inputs)
    assert_same(found, run(Averaged(every(MIXED, **settings)), inputs))


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_every_term_has_values_of_its_own_which_follow_their_pairs(variant):
    inputs, order = MIXED.inputs(), torch.tensor([3, 0, 4, 1, 2])
    loss, mean = every(MIXED, variant, reduction="none"), every(MIXED, variant)
    found, expected = loss(**inputs, output_dict=True), mean(**inputs, output_dict=True)
    moved = loss(**permuted(inputs, order), output_dict=True)
    assert found.keys() == expected.keys()
    for name, values in found.items():
        assert values.shape == (MIXED.batch,), name
        assert_close(values.mean(), expected[name], message=name)
        assert_close(moved[name], values[order], message=name)
        assert values.unique().numel() == MIXED.batch, name
    assert_close(loss(**inputs), sum(found.values()))


def unit(inputs: Inputs, *names: str) -> list[Tensor]:
    return [F.normalize(inputs[f"{name}_features"], dim=1) for name in names]


def test_a_pairs_value_is_that_of_its_image_and_of_its_text():
    inputs, own = Problem().inputs(), torch.arange(5)
    image, text, teacher_image, teacher_text = unit(inputs, "image", "text", "dist_image", "dist_text")
    logits = inputs["logit_scale"] * image @ text.T
    entropies = [F.cross_entropy(table, own, reduction="none") for table in (logits, logits.T)]
    assert_close(kdlosses.CLIPLoss(reduction="none")(**inputs), sum(entropies) / 2)
    gaps = [(image - teacher_image).square().mean(1), (text - teacher_text).square().mean(1)]
    assert_close(kdlosses.FDLoss(reduction="none")(**inputs), sum(gaps))
    labels = 2 * torch.eye(5) - 1
    sigmoids = -F.logsigmoid(labels * (logits + inputs["logit_bias"])).sum(1)
    assert_close(kdlosses.SigLIPLoss(reduction="none")(**inputs), sigmoids)


def test_with_several_teachers():
    weights = {term: weight for term, weight in EVERY if term != "afd"}
    by_pair, mean = (multi_teacher(weights=weights, reduction=kind) for kind in ("none", "mean"))
    inputs = of_teachers()
    assert by_pair(**inputs).shape == (8,)
    assert_same(run(Averaged(by_pair), inputs), run(Averaged(mean), inputs))


def test_in_wrappers_as_within_them():
    inputs, captions = MIXED.inputs(), [MIXED.with_(seed=seed).inputs()["text_features"] for seed in (1, 2)]
    loss, mean = every(MIXED, "paper", reduction="none"), every(MIXED, "paper")
    found = kdlosses.MultiCaptionLoss(loss)(**inputs | of_sets(captions, inputs))
    assert_close(found, sum(loss(**inputs | {"text_features": one}) for one in captions))
    narrow = [kdlosses.MatryoshkaLoss(one, dims=[2, 4]) for one in (loss, mean)]
    narrow[1].load_state_dict(narrow[0].state_dict())
    loss, mean = (one.double()(**inputs) for one in narrow)
    assert loss.shape == (MIXED.batch,)
    assert_close(loss.mean(), mean)


def of_sets(captions: list[Tensor], inputs: Inputs) -> dict[str, Any]:
    return {"text_features": captions, "dist_text_features": [inputs["dist_text_features"]] * len(captions)}


def test_the_default_is_the_mean_and_is_not_printed():
    assert "reduction" not in repr(kdlosses.CRDLoss())
    assert "reduction='none'" in repr(kdlosses.CRDLoss(reduction="none"))
    with pytest.raises(ValueError, match="reduction 'sum' is unknown; known: mean, none"):
        kdlosses.AffinityLoss(reduction="sum")


@pytest.mark.slow
def test_compiled():
    weights = {"crd": 1.0, "gd": 2.0, "fd": 3.0, "vrd": 0.5}
    loss, inputs = build("clip_kd", MIXED, weights=weights, reduction="none"), MIXED.inputs()
    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    assert_same(run(Averaged(compiled), inputs), run(Averaged(loss), inputs))


@pytest.mark.parametrize(
    ("pairs", "says"),
    [
        (None, "term 'mine' has no value for each pair, so .* cannot have reduction='none'"),
        (lambda rows: 2 * rows[0], "the mean of its pairs is .* and its finish returns .* must be equal"),
        (lambda rows: rows[0].mean(), r"pairs must return a tensor \[B\], a value for each pair, got shape \[\]"),
        (lambda rows: rows[0], None),
    ],
)
def test_a_term_of_somebody_elses(pairs, says, monkeypatch):
    monkeypatch.setattr(registry, "_TERMS", dict(registry._TERMS))
    monkeypatch.setattr(term_checks, "_tried", set())

    def compute(_: Term, embeddings: Any) -> Computation:
        request = KL(embeddings.student.i2t, embeddings.teacher.i2t)
        return Computation([request], lambda rows: rows[0].mean(), pairs)

    needs = frozenset({"scale", "teacher", "teacher_scale"})
    kdlosses.register(type("Mine", (Term,), {"name": "mine", "needs": needs, "compute": compute}))
    loss, inputs = kdlosses.build("mine", reduction="none"), Problem().inputs()
    if says is None:
        assert_close(loss(**inputs).mean(), kdlosses.build("mine")(**inputs))
        return
    with pytest.raises(ValueError, match=says):
        loss(**inputs)
    assert kdlosses.build("mine")(**inputs).ndim == 0


def test_a_mean_of_directions_brings_its_pairs():
    rows = torch.tensor([[1.0, 2.0], [3.0, 6.0]])
    computation = Computation([], mean_of_directions)
    assert computation.pairs is not None
    assert torch.equal(computation.pairs(list(rows)), torch.tensor([2.0, 4.0]))
