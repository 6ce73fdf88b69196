"""Seeds of the data's parts: independent of each other, the same on every machine and in every version."""

from __future__ import annotations

import torch

from harness.data.seeds import derive, permutation


def test_other_parts_give_another_seed():
    parts = [(1, 23), (12, 3), (123,), (1, 2, 3), ("a", 1), ("a1",), (1, "a")]
    assert len({derive(*one) for one in parts}) == len(parts)
    assert derive(1, 23) == derive("1", "23")


def test_a_seed_never_changes():
    """A run resumes with a later version of Python, torch and this package."""
    assert derive(0, "order", 3) == 8226377041923426018
    assert permutation(6, 0, "order", 3).tolist() == [5, 4, 2, 1, 0, 3]


def test_a_permutation_holds_each_number_once():
    found = permutation(50, 7)
    assert found.dtype == torch.int64 and sorted(found.tolist()) == list(range(50))
