"""What the tensors of a part of a cache must be: names, types and shapes that belong together."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

_INDEX = ("ids", "keys", "checks")
# What only some views have.
_VIEWS = ("boxes", "maps")


def tensor_problem(tensors: Mapping[str, Tensor], embed_dim: int, num_views: int) -> str:
    """What is wrong with a part's tensors, as a clause; empty where nothing is.

    Args:
        tensors: by name.
        embed_dim: width of the teacher's embeddings.
        num_views: how many views of an image are cached.
    """
    if missing := [name for name in (*_INDEX, "bad_ids") if name not in tensors]:
        return f"it has no tensor {missing[0]}"
    for name in (*_INDEX, "bad_ids"):
        if tensors[name].dtype != torch.int64 or tensors[name].ndim != 1:
            return f"its tensor {name} must be a row of int64, got {_words(tensors[name])}"
    count = len(tensors["ids"])
    if any(len(tensors[name]) != count for name in _INDEX):
        return f"its tensors {', '.join(_INDEX)} have different lengths"
    ids = tensors["ids"]
    if (ids[1:] <= ids[:-1]).any():
        return "its ids are not in ascending order, each once"
    return _rows_problem(tensors, count, embed_dim, num_views) if count else ""


def _rows_problem(tensors: Mapping[str, Tensor], count: int, embed_dim: int, num_views: int) -> str:
    shapes = {"image_features": (count, num_views, embed_dim), "text_features": (count, embed_dim)}
    for name, shape in shapes.items():
        if name not in tensors:
            return f"it has no tensor {name}"
        if tensors[name].shape != shape or not tensors[name].is_floating_point():
            return f"its tensor {name} must be floating point {list(shape)}, got {_words(tensors[name])}"
    for name in _VIEWS:
        if name in tensors and tensors[name].shape[:2] != (count, num_views):
            return f"its tensor {name} must have {count} rows of {num_views} views, got {_words(tensors[name])}"
    return ""


def _words(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
