"""The border: open_clip's keywords in, validated tensors of one dtype out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from kdlosses.checks import (
    as_scale,
    check_features,
    check_finite,
    check_group_ids,
    check_same_rows,
    check_same_width,
)
from kdlosses.memo import Memo

Scale = float | Tensor
# Image features, text features, scale and bias as a call has them.
StudentArguments = tuple[Tensor, Tensor | None, Scale, Scale | None]
TeacherArguments = tuple[Tensor | None, Tensor | None, Scale | None, Scale | None]


@dataclass(eq=False)
class Inputs:
    """Validated arguments of one call: features as they came, scales and biases in ``dtype``, the computation's.

    The teacher's are detached.
    """

    dtype: torch.dtype
    image: Tensor
    text: Tensor
    scale: Tensor
    bias: Tensor | None
    teacher_image: Tensor | None
    teacher_text: Tensor | None
    teacher_scale: Tensor | None
    teacher_bias: Tensor | None
    masked_image: Tensor | None
    bank_targets: Tensor | None = None
    group_ids: Tensor | None = None
    # [B], drawn for this teacher where teachers are dropped.
    draws: Tensor | None = None

    def twice(self) -> Inputs:
        """The same with every pair twice."""
        features = ["image", "text", "teacher_image", "teacher_text", "masked_image"]
        given = {name: getattr(self, name) for name in [*features, "bank_targets", "group_ids", "draws"]}
        doubled: dict[str, Any] = {name: torch.cat([x, x]) for name, x in given.items() if x is not None}
        return self.changed(**doubled)

    def first(self, width: int, memo: Memo) -> Inputs:
        """The same with the first ``width`` numbers of each of the student's embeddings."""

        def cut(values: Tensor) -> Tensor:
            if values.shape[1] == width:
                return values
            return memo.once(f"first {width}", (values,), lambda: values[:, :width])

        masked = None if self.masked_image is None else cut(self.masked_image)
        return self.changed(image=cut(self.image), text=cut(self.text), masked_image=masked)

    def in_dtype(self, dtype: torch.dtype) -> Inputs:
        """The same for a computation in ``dtype``."""
        numbers = {name: getattr(self, name) for name in ("scale", "bias", "teacher_scale", "teacher_bias")}
        changed: dict[str, Any] = {name: x.to(dtype) for name, x in numbers.items() if x is not None}
        return self.changed(dtype=dtype, **changed)

    def changed(self, **changes: Any) -> Inputs:
        """The same with other values for some."""
        # Not dataclasses.replace, which torch 2.6 cannot compile.
        return Inputs(**{**{name: getattr(self, name) for name in _NAMES}, **changes})

    def features(self) -> dict[str, Tensor]:
        """Those that were given, by the name of their argument."""
        every = {
            "image_features": self.image,
            "text_features": self.text,
            "dist_image_features": self.teacher_image,
            "dist_text_features": self.teacher_text,
            "masked_image_features": self.masked_image,
        }
        return {name: value for name, value in every.items() if value is not None}


_NAMES = tuple(field.name for field in fields(Inputs))


def read_inputs(
    image: Tensor,
    text: Tensor | None,
    scale: Scale,
    bias: Scale | None,
    teacher_image: Tensor | None,
    teacher_text: Tensor | None,
    teacher_scale: Scale | None,
    teacher_bias: Scale | None,
    masked_image: Tensor | None,
    check: bool,
    dtype: torch.dtype | None = None,
    texts: bool = True,
    group_ids: Tensor | None = None,
    bank_targets: Tensor | None = None,
) -> Inputs:
    """Validate shapes, rows, devices and dtypes.

    Args:
        image, text, scale, bias: the student's, see `DistillLoss.forward`.
        teacher_image, teacher_text, teacher_scale, teacher_bias: the teacher's.
        masked_image: of the student.
        check: look for non-finite numbers too.
        dtype: of the computation, where other features than these have a say in it (see `computation_dtype`).
        texts: whether any term reads them; without, they may be None, in whose place there are rows of NaN then.
        group_ids: of the pairs.
        bank_targets: of the pairs.

    Raises:
        ValueError: naming the argument, what was expected and what was given.
    """
    features: dict[str, Any] = {"image_features": image}
    if texts or text is not None:
        features["text_features"] = text
    optional = {
        "dist_image_features": teacher_image,
        "dist_text_features": teacher_text,
        "masked_image_features": masked_image,
    }
    features.update({name: value for name, value in optional.items() if value is not None})
    _check(features)
    if teacher_text is None and teacher_image is not None and not texts:
        teacher_text = _unread(teacher_image)
    check_group_ids(group_ids, image)
    dtype = dtype or computation_dtype(list(features.values()))
    given = {"logit_bias": bias, "dist_logit_scale": teacher_scale, "dist_logit_bias": teacher_bias}
    numbers = {name: as_scale(name, value, image, dtype) for name, value in given.items() if value is not None}
    numbers["logit_scale"] = as_scale("logit_scale", scale, image, dtype)
    if check:
        check_finite({**features, **numbers})
    return Inputs(
        dtype=dtype,
        image=image,
        text=_unread(image) if text is None else text,
        scale=numbers["logit_scale"],
        bias=numbers.get("logit_bias"),
        teacher_image=_constant(teacher_image),
        teacher_text=_constant(teacher_text),
        teacher_scale=_constant(numbers.get("dist_logit_scale")),
        teacher_bias=_constant(numbers.get("dist_logit_bias")),
        masked_image=masked_image,
        bank_targets=_read_targets(bank_targets, image),
        group_ids=None if group_ids is None else group_ids.to(torch.int64),
    )


def _read_targets(targets: object, image: Tensor) -> Tensor | None:
    """``bank_targets`` as ``[B, P]``, None where there are none.

    Raises:
        ValueError: unless they are integers, a row for each of ``image``, where that is.
    """
    if targets is None:
        return None
    what = "bank_targets must be a [B] or [B, P] tensor of integers"
    if not isinstance(targets, Tensor):
        raise ValueError(f"{what}, got {type(targets).__name__}")
    if targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool:
        raise ValueError(f"{what}, got {targets.dtype}")
    if targets.ndim not in (1, 2) or targets.shape[0] != image.shape[0] or (targets.ndim == 2 and not targets.shape[1]):
        raise ValueError(f"{what} with B = {image.shape[0]}, as image_features has, got {list(targets.shape)}")
    if targets.device != image.device:
        raise ValueError(f"bank_targets is on {targets.device} but image_features is on {image.device}")
    return targets.to(torch.int64).reshape(image.shape[0], -1)


def computation_dtype(features: Sequence[object]) -> torch.dtype:
    """float32, or float64 if any of ``features`` are."""
    wide = any(isinstance(value, Tensor) and value.dtype == torch.float64 for value in features)
    return torch.float64 if wide else torch.float32


def _unread(like: Tensor) -> Tensor:
    """Rows that no term may read, without memory: NaN, so that one that does gives no number."""
    return like.detach().new_full((), math.nan).expand(like.shape)


def _constant(value: Tensor | None) -> Tensor | None:
    return None if value is None else value.detach()


def _check(features: dict[str, Tensor]) -> None:
    for name, value in features.items():
        check_features(name, value)
    check_same_rows(features)
    widths = [("image_features", "text_features"), ("dist_image_features", "dist_text_features")]
    widths.append(("image_features", "masked_image_features"))
    for first, second in widths:
        if first in features and second in features:
            check_same_width(first, features[first], second, features[second])
