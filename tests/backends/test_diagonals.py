"""Relations whose diagonal is left out, and those that have no positives: what no other relation can go wrong in."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kdlosses import backends
from kdlosses.relation import Relation
from kdlosses.requests import (
    KL,
    CrossEntropy,
    CrossEntropyGrad,
    JensenShannon,
    ReverseKL,
    SigmoidCrossEntropy,
    SoftCrossEntropy,
)
from kdlosses.rows import constant_rows, rows_of
from tests.backends import reference
from tests.backends.agreement import assert_agrees, flat
from tests.backends.subjects import OF_TORCH, Subject, each_backend, subject
from tests.backends.test_compiled import ENGINES, Operator
from tests.backends.test_requests import LISTS, World, tensors
from tests.problems import seeded

NAMES = ("excluded", "excluded-both", "excluded-shard", "none", "reverse-and-kl", "reverse-excluded")
DEFINITIONS = Subject(backends.create("reference"), "cpu", torch.float64)


def spread(count: int, seed: int) -> Tensor:
    """Rows that are far from each other: at scale 100 all softmaxes but that of a row with itself underflow."""
    return torch.eye(count, 8, dtype=torch.float64) + 0.05 * torch.randn(
        count, 8, dtype=torch.float64, generator=seeded(seed)
    )


def intra(values: Tensor, dtype: torch.dtype, scale: float) -> Relation:
    rows = rows_of(values, dtype)
    return Relation(rows, rows, torch.tensor(scale, dtype=dtype, device=values.device), diagonal="excluded")


@each_backend
@pytest.mark.parametrize("kind", [KL, SoftCrossEntropy, ReverseKL])
def test_a_diagonal_far_above_all_others_leaves_them_their_digits(label, kind):
    tested = subject(label)
    student, teacher = (spread(6, seed).to(tested.device, tested.dtype) for seed in (1, 2))
    student.requires_grad_()
    request = kind(intra(student, tested.dtype, 100.0), intra(teacher, tested.dtype, 100.0))
    assert_agrees(tested, [request], [student])


@each_backend
def test_a_row_without_others_has_nothing_to_learn(label):
    tested = subject(label)
    only = torch.randn(1, 4, generator=seeded(3)).to(tested.device, tested.dtype).requires_grad_()
    relations = intra(only, tested.dtype, 9.0), intra(only.detach(), tested.dtype, 5.0)
    for kind in (KL, SoftCrossEntropy, ReverseKL):
        (answer,) = tested.backend.evaluate([kind(*relations)])
        (gradient,) = torch.autograd.grad(answer.sum(), only)
        assert answer.item() == 0 and not gradient.any()


@each_backend
@pytest.mark.parametrize("nudge", [1e-3, 0.0])
def test_the_reverse_kl_of_confident_rows_keeps_its_digits_near_the_teacher(label, nudge):
    tested = subject(label)
    teacher = spread(6, 1)
    student = (teacher + nudge * spread(6, 2)).to(tested.device, tested.dtype).requires_grad_()
    scale = torch.tensor(9.0, dtype=tested.dtype, device=tested.device)
    rows, fixed = (rows_of(one.to(tested.device, tested.dtype), tested.dtype) for one in (student, teacher))
    assert_agrees(tested, [ReverseKL(Relation(rows, rows, scale), Relation(fixed, fixed, scale))], [student])


@pytest.mark.parametrize("name", NAMES)
def test_definitions(name):
    leaves = tensors(DEFINITIONS)
    assert_agrees(DEFINITIONS, LISTS[name](World(DEFINITIONS, leaves)), leaves)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", NAMES)
def test_the_operator_has_the_same_bits(name, engine):
    outcomes = []
    for always in (True, False):
        tested = Subject(Operator(ENGINES[engine], always), "cpu", torch.float64)
        leaves = tensors(tested, ("queries", "keys", "scale"))
        answers = flat(tested.backend, LISTS[name](World(tested, leaves)))
        held = [leaf for leaf in leaves if leaf.requires_grad]
        grads = torch.autograd.grad(sum(answer.sum() for answer in answers), held, allow_unused=True)
        outcomes.append([*answers, *(one for one in grads if one is not None)])
    for found, wanted in zip(*outcomes, strict=True):
        assert torch.equal(found, wanted)


@pytest.mark.parametrize("label", OF_TORCH)
def test_more_constant_keys_than_a_tile_has(label):
    tested = subject(label)
    values, others, bank = (torch.randn(n, 4, dtype=torch.float64, generator=seeded(n)) for n in (4, 5, 9))
    values.requires_grad_()
    keys, scale = constant_rows(bank, torch.float64), torch.tensor(9.0, dtype=torch.float64, requires_grad=True)
    student = Relation(rows_of(values, torch.float64), keys, scale, diagonal="none")
    teacher = Relation(rows_of(others[:4], torch.float64), keys, scale.detach(), diagonal="none")
    assert_agrees(tested, [KL(student, teacher), SoftCrossEntropy(student, teacher)], [values, scale])


def test_copies_and_transposes_keep_the_diagonal():
    relation = intra(spread(3, 1), torch.float64, 3.0)
    for made in (relation.transposed(), relation.constant(), relation.constant().transposed()):
        assert made.diagonal == "excluded"
        assert torch.equal(made.matrix(), relation.matrix())
    assert not constant_rows(torch.ones(2, 3, requires_grad=True), torch.float64).values.requires_grad
    assert constant_rows(torch.ones(2, 3), torch.float64).constant().everywhere


def test_what_needs_a_positive_refuses_rows_without():
    relation, bias = intra(spread(3, 1), torch.float64, 3.0), torch.tensor(0.0)
    for ask in (CrossEntropy, CrossEntropyGrad, lambda one: SigmoidCrossEntropy(one, bias)):
        with pytest.raises(ValueError, match="needs a positive in each row, got a relation with diagonal='excluded'"):
            ask(relation)


def test_softmaxes_over_different_entries_are_not_compared():
    left_out = intra(spread(3, 1), torch.float64, 3.0)
    whole = Relation(left_out.queries, left_out.keys, left_out.scale)
    for ask in (KL, SoftCrossEntropy, lambda *those: JensenShannon(those, [0.5, 0.5])):
        with pytest.raises(ValueError, match=r"must have the same diagonal, .* got 'excluded' and 'positive'"):
            ask(left_out, whole)
    with pytest.raises(ValueError, match="must be one of positive, excluded, none, got 'zero'"):
        Relation(left_out.queries, left_out.keys, left_out.scale, diagonal="zero")


def test_a_mixture_where_a_teacher_gives_some_keys_no_weight_at_all():
    """In float32 a softmax underflows to zero; the definition must not take its logarithm."""
    rows = rows_of(spread(4, 5).float(), torch.float32)
    of = [Relation(rows, rows, torch.tensor(scale)) for scale in (400.0, 300.0)]
    request = JensenShannon(of, [0.5, 0.5])
    assert request.answer().isfinite().all()
    torch.testing.assert_close(request.answer().double(), reference.answer(request)[0].nan_to_num(), atol=1e-5, rtol=0)
