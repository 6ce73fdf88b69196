"""Guards: one sentence each, naming the argument, what was expected and what was given."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from numbers import Real

import torch
from torch import Tensor

VARIANTS = ("paper", "released")
REDUCTIONS = ("mean", "none")


def check_variant(variant: str) -> None:
    """Raise ValueError unless ``variant`` is one of ``VARIANTS``."""
    if variant not in VARIANTS:
        raise ValueError(f"variant={variant!r} is unknown; known variants: {', '.join(VARIANTS)}")


def check_known(kind: str, name: object, known: Iterable[str]) -> None:
    """Raise ValueError with the known names, and the nearest, unless ``name`` is among them."""
    known = list(known)
    if name in known:
        return
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"{kind} {name!r} is unknown; known: {', '.join(known)}{hint}")


def check_width(name: str, value: object) -> None:
    """Raise ValueError unless ``value`` is None or a positive integer."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise ValueError(f"{name} must be a positive integer, got {value!r}")


def check_weight(term: str, value: object) -> None:
    """Raise ValueError unless ``value`` is a finite number that is not negative."""
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value) or value < 0:
        raise ValueError(f"weight of {term!r} must be a finite number >= 0, got {value!r}")


def check_features(name: str, value: object) -> None:
    """Raise ValueError unless ``value`` is a floating-point ``[B, D]`` tensor with at least one row."""
    if not isinstance(value, Tensor):
        raise ValueError(f"{name} must be a [B, D] tensor, got {type(value).__name__}")
    if value.ndim != 2 or value.shape[0] == 0 or value.shape[1] == 0:
        raise ValueError(f"{name} must have shape [B, D] with B, D >= 1, got {list(value.shape)}")
    if not value.is_floating_point():
        raise ValueError(f"{name} must be floating point, got {value.dtype}")


def check_same_rows(features: dict[str, Tensor]) -> None:
    """Raise ValueError unless all tensors have the same number of rows and live on one device."""
    names = list(features)
    first = features[names[0]]
    for name in names[1:]:
        if features[name].shape[0] != first.shape[0]:
            raise ValueError(
                f"{name} has {features[name].shape[0]} rows but {names[0]} has {first.shape[0]}; "
                "every row must be one image-text pair of the same batch"
            )
        if features[name].device != first.device:
            raise ValueError(f"{name} is on {features[name].device} but {names[0]} is on {first.device}")


def check_group_ids(value: object, features: Tensor) -> None:
    """Raise ValueError unless ``value`` is None, or an integer for each row of ``features`` on their device."""
    if value is None:
        return
    kinds = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
    if not isinstance(value, Tensor) or value.dtype not in kinds:
        got = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"group_ids must be a tensor [B] of integers, one for each pair, got {got}")
    if value.shape != features.shape[:1]:
        raise ValueError(f"group_ids must have shape [{features.shape[0]}], one for each pair, got {list(value.shape)}")
    if value.device != features.device:
        raise ValueError(f"group_ids is on {value.device} but image_features is on {features.device}")


def check_same_width(first: str, a: Tensor, second: str, b: Tensor) -> None:
    """Raise ValueError unless both tensors have the same number of columns."""
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"{first} has width {a.shape[1]} but {second} has width {b.shape[1]}; they must be equal")


def as_scale(name: str, value: object, like: Tensor, dtype: torch.dtype) -> Tensor:
    """``value`` as a 0-d tensor of ``dtype`` on ``like``'s device, differentiable where it was.

    Raises:
        ValueError: unless it is a number or a floating-point tensor of shape [] or [1].
    """
    if isinstance(value, Tensor):
        if value.ndim > 1 or value.numel() != 1 or not value.is_floating_point():
            raise ValueError(
                f"{name} must be a number or a floating-point tensor of shape [] or [1], "
                f"got {value.dtype} of shape {list(value.shape)}"
            )
        return value.reshape(()).to(device=like.device, dtype=dtype)
    if isinstance(value, (int, float, Real)) and not isinstance(value, bool):
        return torch.full((), float(value), device=like.device, dtype=dtype)
    raise ValueError(f"{name} must be a number or a tensor of shape [] or [1], got {type(value).__name__}")


def check_finite(values: dict[str, Tensor]) -> None:
    """Raise ValueError naming the first tensor with a NaN or infinity; costs a host sync for each tensor."""
    for name, value in values.items():
        bad = int((~torch.isfinite(value)).sum())
        if bad:
            raise ValueError(
                f"{name} holds {bad} non-finite values of {value.numel()}; the model or its input is broken"
            )
