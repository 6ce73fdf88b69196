"""Tensors of a part that do not belong together, which files of earlier versions have no checksum against."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from harness.teachers.part_tensors import tensor_problem

Tensors = dict[str, Tensor]


def good() -> Tensors:
    """Three samples with two views."""
    return {
        "ids": torch.tensor([-5, 2, 9]),
        "keys": torch.tensor([1, 1, 2]),
        "checks": torch.tensor([3, 3, 3]),
        "bad_ids": torch.tensor([7], dtype=torch.int64),
        "boxes": torch.zeros(3, 2, 4, dtype=torch.int32),
        "tokens": torch.zeros(3, 16, dtype=torch.int32),
        "image_features": torch.zeros(3, 2, 8, dtype=torch.float16),
        "text_features": torch.zeros(3, 8, dtype=torch.float16),
    }


def without(name: str) -> Callable[[Tensors], None]:
    """Leave a tensor out."""
    return lambda tensors: tensors.__delitem__(name)


def replaced(name: str, value: Tensor) -> Callable[[Tensors], None]:
    """Put another in the place of a tensor."""
    return lambda tensors: tensors.__setitem__(name, value)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        *((without(name), f"it has no tensor {name}") for name in ("ids", "keys", "checks", "bad_ids")),
        *((without(name), f"it has no tensor {name}") for name in ("image_features", "text_features")),
        (replaced("ids", torch.tensor([1.0, 2.0, 3.0])), "its tensor ids must be a row of int64, got float32 [3]"),
        (replaced("ids", torch.tensor([1, 3, 2])), "its ids are not in ascending order, each once"),
        (replaced("ids", torch.tensor([1, 2, 2])), "its ids are not in ascending order, each once"),
        (replaced("keys", torch.tensor([1, 3])), "its tensors ids, keys, checks have different lengths"),
        (
            replaced("image_features", torch.zeros(3, 1, 8)),
            "its tensor image_features must be floating point [3, 2, 8], got float32 [3, 1, 8]",
        ),
        (
            replaced("text_features", torch.zeros(3, 8, dtype=torch.int32)),
            "its tensor text_features must be floating point [3, 8], got int32 [3, 8]",
        ),
        (
            replaced("boxes", torch.zeros(3, 1, 4)),
            "its tensor boxes must have 3 rows of 2 views, got float32 [3, 1, 4]",
        ),
    ],
)
def test_what_does_not_fit_is_named(spoil: Callable[[Tensors], None], says: str) -> None:
    tensors = good()
    assert tensor_problem(tensors, 8, 2) == ""
    spoil(tensors)
    assert tensor_problem(tensors, 8, 2) == says


def test_a_part_without_samples_has_no_features() -> None:
    none = {name: torch.empty(0, dtype=torch.int64) for name in ("ids", "keys", "checks", "bad_ids")}
    assert tensor_problem(none, 8, 2) == ""
