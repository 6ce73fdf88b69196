"""Lazy similarities: what the copies of a relation and of pairs keep, and what they share."""

from __future__ import annotations

import pytest
import torch

from kdlosses.relation import Pairs
from kdlosses.rows import rows_of
from tests.problems import seeded


@pytest.fixture
def pairs() -> Pairs:
    image, text = (torch.randn(3, 4, generator=seeded(seed), dtype=torch.float64) for seed in (1, 2))
    bias = torch.tensor(-5.0, dtype=torch.float64)
    return Pairs(rows_of(image, torch.float64), rows_of(text, torch.float64), torch.tensor(7.0), bias)


def test_pairs_at_two_constant_scales_are_two(pairs):
    low, high = pairs.at(2.0), pairs.at(30.0)
    assert (low.scale.item(), high.scale.item()) == (2.0, 30.0)
    assert low is pairs.at(2.0) and high is pairs.at(30.0), "each is made once, so that its work is shared"
    assert pairs.at(None) is pairs and pairs.scale.item() == 7.0


def test_pairs_at_a_constant_scale_keep_rows_and_bias(pairs):
    found = pairs.at(2.0)
    assert found.image is pairs.image and found.text is pairs.text and found.bias is pairs.bias
    assert not found.scale.requires_grad and found.scale.dtype == torch.float64


def test_a_constant_relation_gives_nothing_a_gradient_and_shares_the_product(pairs):
    pairs.image.values.requires_grad_()
    made = pairs.i2t.constant()
    assert not (made.queries.values.requires_grad or made.keys.values.requires_grad or made.scale.requires_grad)
    assert made.computed is pairs.i2t and made.transposed().computed is pairs.i2t
    assert (made.shape, made.offset) == (pairs.i2t.shape, pairs.i2t.offset)
