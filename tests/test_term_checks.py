"""What is wrong with a term is one sentence, when it is registered or at its first call, and never a wrong number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import kdlosses
from kdlosses import Computation, Term, register, registry, term_checks
from kdlosses.relation import Relation
from kdlosses.requests import KL, CrossEntropy, CrossEntropyGrad, SquaredDistance, mean_of_directions
from kdlosses.rows import rows_of
from tests.problems import Problem

CRD = frozenset({"scale", "teacher", "teacher_scale"})
FD = frozenset({"teacher", "aligned"})


@pytest.fixture(autouse=True)
def _forgotten(monkeypatch):
    monkeypatch.setattr(registry, "_TERMS", dict(registry._TERMS))
    monkeypatch.setattr(term_checks, "_tried", set())


def make(compute: Callable[[Any], Any], needs: frozenset[str] = CRD, **facts: Any) -> type[Term]:
    body = {"name": "mine", "needs": needs, "compute": lambda self, embeddings: compute(embeddings), **facts}
    return register(type("Mine", (Term,), body))


def call(compute: Callable[[Any], Any], needs: frozenset[str] = CRD, **inputs: Any) -> torch.Tensor:
    make(compute, needs)
    return kdlosses.build("mine")(**Problem().inputs() | inputs)


def kl(embeddings: Any) -> KL:
    return KL(embeddings.student.i2t, embeddings.teacher.i2t)


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ({"name": "two words"}, "Mine.name must be a word"),
        ({"needs": "teacher"}, "Mine.needs must be a frozenset"),
        ({"needs": frozenset({"techer"})}, "did you mean 'teacher'"),
        ({"needs": frozenset({"teacher", "cross_scale"})}, "'cross_scale', which builds on 'aligned': add that too"),
        ({"options": ("scale",)}, "Mine.options must map names to defaults"),
        ({"options": {"loss": None}}, "a name must be a word, and not 'loss'"),
        ({"options": {"kind": "kl"}}, r"Mine.options\['kind'\] must be None, a number, .* got 'kl'"),
        ({"default_weight": {"paper": 1.0}}, "default_weight must have paper and released"),
        ({"name": "crd"}, "a term named 'crd' is registered already"),
    ],
)
def test_facts_that_are_wrong_are_refused_at_registration(facts, says):
    with pytest.raises(ValueError, match=says):
        make(kl, **facts)


@pytest.mark.parametrize("thing", [kdlosses.CRDLoss, 3, dict], ids=str)
def test_only_terms_are_registered(thing):
    with pytest.raises(ValueError, match=r"takes a subclass of kdlosses\.Term"):
        register(thing)


def test_a_term_that_computes_nothing_is_refused():
    with pytest.raises(ValueError, match="defines no compute"):
        register(type("Mine", (Term,), {"name": "mine"}))


def test_a_cell_that_is_run_again_replaces_its_term():
    make(lambda e: Computation([], lambda _: torch.zeros(())))
    assert call(lambda e: Computation([], lambda _: torch.ones(()))) == 1


def test_an_instance_is_a_term_too():
    register(type("Mine", (Term,), {"name": "mine", "compute": lambda *_: Computation([], lambda _: torch.ones(()))})())
    assert kdlosses.build("mine")(**Problem().inputs()) == 1


@pytest.mark.parametrize(
    ("read", "needs", "says"),
    [
        (lambda e: e.student.i2t, FD, "embeddings.student, whose scale its needs do not name: add 'scale'"),
        (lambda e: e.teacher.t2i, FD, "embeddings.teacher, whose scale its needs do not name: add 'teacher_scale'"),
        (lambda e: e.aligned.i2t, FD, "embeddings.aligned, whose scale its needs do not name: add 'scale'"),
        (lambda e: e.teacher, frozenset({"scale"}), "reads embeddings.teacher, .* add 'teacher'"),
        (lambda e: e.aligned, CRD, "reads embeddings.aligned, .* add 'aligned'"),
        (lambda e: e.masked, FD, "reads embeddings.masked, .* add 'masked'"),
        (lambda e: e.cross_t2i, FD, "reads embeddings.cross_i2t, .* add 'cross_scale'"),
        (lambda e: e.vertical_text, FD, "reads embeddings.vertical_image, .* add 'vertical'"),
        (lambda e: e.fused, FD, "reads embeddings.fused, .* add 'fusion'"),
    ],
)
def test_reading_what_needs_do_not_name_is_refused(read, needs, says):
    """Also where another term of the same loss needs it."""
    with pytest.raises(ValueError, match=says):
        call(read, needs)
    with pytest.raises(ValueError, match=says):
        kdlosses.CLIPKDLoss({"gd": 1, "icl": 1, "vrd": 1, "mine": 1})(**Problem().inputs())


def test_a_bias_is_read_by_those_alone_who_declare_it():
    assert call(lambda e: Computation([], lambda _: torch.tensor(float(e.student.bias is None)))) == 1


@pytest.mark.parametrize(
    ("finish", "says"),
    [
        (lambda rows: rows[0].sum(), "is not a mean over rows: with every row twice it is"),
        (lambda rows: rows[0], r"a tensor without dimensions, a mean over rows, got shape \[5\]"),
        (lambda rows: 1.0, "a tensor without dimensions, a mean over rows, got float"),
        (lambda rows: rows[0].mean() + rows[1].mean(), "a scalar of the answers to its 1 requests: .*index"),
    ],
)
def test_a_finish_that_is_no_mean_of_the_answers_is_refused(finish, says):
    with pytest.raises(ValueError, match=f"term 'mine' .*{says}"):
        call(lambda e: Computation([kl(e)], finish))


def test_an_answer_that_nobody_reads_is_refused():
    with pytest.raises(ValueError, match="makes 2 requests and its finish reads 1 of the answers"):
        call(lambda e: Computation([kl(e), kl(e)], lambda rows: rows[0].mean()))


@pytest.mark.parametrize("weights", [{"mine": 1.0}, {"mine": 1.0, "crd": 2.0}], ids="+".join)
@pytest.mark.parametrize("reduce", [torch.mean, torch.sum], ids=["mean", "sum"])
def test_a_term_without_requests(weights, reduce):
    def l1(embeddings):
        gap = embeddings.aligned.image.normalized() - embeddings.teacher.image.normalized()
        return Computation([], lambda _: reduce(gap.abs()))

    make(l1, FD)
    inputs = Problem().inputs()
    inputs["image_features"].requires_grad_()
    loss = kdlosses.CLIPKDLoss(weights)
    if reduce is torch.sum:
        with pytest.raises(ValueError, match="term 'mine' is not a mean over rows"):
            loss(**inputs)
        return
    loss(**inputs).backward()
    unit = torch.nn.functional.normalize
    value = loss(**inputs, output_dict=True)["mine_loss"]
    gap = unit(inputs["image_features"], dim=1) - unit(inputs["dist_image_features"], dim=1)
    torch.testing.assert_close(value, gap.abs().mean())
    assert inputs["image_features"].grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("compute", "says"),
    [
        (lambda e: kl(e), "compute must return a kdlosses.Computation, got KL"),
        (lambda e: Computation([e.student.i2t], mean_of_directions), "which is not one of kdlosses.requests"),
    ],
)
def test_something_else_than_requests_is_refused(compute, says):
    with pytest.raises(ValueError, match=says):
        call(compute)


BANK = torch.randn(3, Problem().dims["teacher_dim"], dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def with_bank(embeddings: Any, keys: Any) -> Computation:
    return Computation(
        [CrossEntropy(Relation(embeddings.aligned.image, keys, embeddings.student.scale))], mean_of_directions
    )


NEEDS = frozenset({"scale", "teacher", "aligned"})


def test_keys_that_nobody_could_gather_are_refused():

    with pytest.raises(
        ValueError, match=r"has a relation whose keys are 8 rows of its own.*keys\.extended\(constants\)"
    ):
        call(lambda e: with_bank(e, rows_of(torch.cat([e.teacher.text.values, BANK]), e.dtype)), NEEDS)
    with pytest.raises(ValueError, match="compares 5 rows of its own"):
        call(
            lambda e: Computation([SquaredDistance(e.aligned.text, rows_of(e.teacher.text.values, e.dtype))], None), FD
        )


def test_constant_keys_alone_have_no_positives():
    def against(e: Any, diagonal: str) -> Computation:
        relations = [
            Relation(rows, e.constant_rows(BANK), e.student.scale.detach(), diagonal=diagonal)
            for rows in (e.aligned.image, e.teacher.image)
        ]
        return Computation([KL(*relations)], mean_of_directions)

    with pytest.raises(ValueError, match='constants alone, where no row has a positive: make it with diagonal="none"'):
        call(lambda e: against(e, "positive"), NEEDS)
    inputs, unit = Problem().inputs(), torch.nn.functional.normalize
    q, p = (
        inputs["logit_scale"] * unit(inputs[key], dim=1) @ unit(BANK, dim=1).T
        for key in ("image_features", "dist_image_features")
    )
    wanted = torch.nn.functional.kl_div(q.log_softmax(1), p.softmax(1), reduction="batchmean")
    torch.testing.assert_close(call(lambda e: against(e, "none"), NEEDS), wanted)


def test_constant_keys_beside_the_batchs():
    inputs = Problem().inputs()
    found = call(lambda e: with_bank(e, e.teacher.text.extended(BANK)), NEEDS)
    unit = torch.nn.functional.normalize
    keys = unit(torch.cat([inputs["dist_text_features"], BANK]), dim=1)
    logits = inputs["logit_scale"] * unit(inputs["image_features"], dim=1) @ keys.T
    torch.testing.assert_close(found, torch.nn.functional.cross_entropy(logits, torch.arange(5)))


def test_a_rectangular_relation_has_no_transpose_and_no_gradient():
    with pytest.raises(ValueError, match="only a square relation has a transpose, not one of 5 x 8"):
        call(lambda e: Relation(e.aligned.image, e.teacher.text.extended(BANK), e.student.scale).transposed(), NEEDS)

    def gradient(e: Any) -> Computation:
        relation = Relation(e.aligned.image, e.teacher.text.extended(BANK), e.student.scale)
        return Computation([CrossEntropyGrad(relation)], lambda answers: answers[0][0].mean())

    with pytest.raises(ValueError, match="gradient of a relation with constant keys"):
        call(gradient, NEEDS)


def test_embeddings_of_a_terms_own_making_are_rows_of_the_batch():
    found = call(lambda e: Computation([SquaredDistance(e.rows(e.aligned.text.values), e.teacher.text)], _mean), FD)
    theirs = call(lambda e: Computation([SquaredDistance(e.aligned.text, e.teacher.text)], _mean), FD)
    assert found == theirs


def _mean(rows: Any) -> torch.Tensor:
    return rows[0].mean()
