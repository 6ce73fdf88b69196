"""The least number of matrix products, held against counts by hand and by torch's own counter."""

from __future__ import annotations

from dataclasses import replace

import pytest
from torch.utils.flop_counter import FlopCounterMode

from harness.bench.losses.cases import Case, known_losses, weights_of
from harness.bench.losses.implementations import make_setup
from harness.bench.losses.lower_bound import matmul_lower_bound
from kdlosses.cost import MatrixProducts

BY_HAND = {
    "clip_kd": (8, 12),
    "contrastive": (3, 4),
    "crd": (4, 6),
    "affinity": (4, 6),
    "relation": (4, 6),
    "decoupled_affinity": (4, 6),
    "icl": (4, 6),
    "cross_kd": (5, 8),
    "vrd": (4, 6),
    "xrd": (4, 6),
    "afd": (3, 4),
    "gd": (12, 18),
    "siglip": (3, 4),
    "sigmoid_kd": (4, 6),
    "bank": (0, 0),  # those with its keys, which are not B x D x B
    "gram": (0, 0),  # those of D x D
    "fd": (0, 0),
    "mfd": (0, 0),
    "contrastive+crd": (4, 6),
}


def floor(loss: str, variant: str = "paper", dim: int = 64, teacher_dim: int = 64) -> MatrixProducts:
    return matmul_lower_bound(weights_of(loss, variant), variant, dim, teacher_dim)


@pytest.mark.parametrize("loss", known_losses())
def test_by_hand(loss):
    assert floor(loss) == MatrixProducts(*BY_HAND[loss])


def test_the_released_gd_takes_each_direction_apart():
    assert floor("gd", "released") == MatrixProducts(20, 28)


def test_terms_that_share_a_relation_count_it_once():
    assert floor("contrastive+crd") == floor("crd")
    assert floor("gd+crd") == floor("gd"), "the same student and teacher relations where the widths are equal"
    assert floor("icl+cross_kd") == floor("cross_kd")
    assert floor("icl+xrd") == floor("icl")
    assert floor("gd+crd", teacher_dim=128) == MatrixProducts(2 * 12 + 3, 2 * 18 + 4), (
        "the student's own relation beside P's"
    )


def test_products_of_the_teachers_width_count_by_it():
    assert floor("crd", teacher_dim=128) == MatrixProducts(3 + 2, 4 + 4)
    assert floor("icl", teacher_dim=32) == MatrixProducts(2, 3)
    assert floor("contrastive", teacher_dim=128) == MatrixProducts(3, 4)


def multiplied(loss: str, implementation: str, batch: int = 96, dim: int = 16) -> float:
    """B x D x B products that torch counts in forward and backward; products of other shapes are left out."""
    setup = make_setup(Case(loss, "paper", implementation, batch, dim, dim, "float32", "cpu", 1))
    with FlopCounterMode(display=False) as counter:
        setup.forward().backward()
    return counter.get_total_flops() / (2 * batch * dim * batch)


@pytest.mark.parametrize(
    ("loss", "directions"),
    [("contrastive", 2), ("crd", 2), ("icl", 1), ("clip_kd", 2), ("siglip", 1), ("sigmoid_kd", 1)],
)
def test_the_formula_takes_at_least_the_floor(loss, directions):
    kept = floor(loss).kept
    assert kept <= multiplied(loss, "formula") <= directions * kept


def test_case_is_hashable_and_complete():
    one = Case("crd", "paper", "dense", 4, 2, 2, "float32", "cpu", 1)
    assert len({one, replace(one, batch=8), replace(one)}) == 2
