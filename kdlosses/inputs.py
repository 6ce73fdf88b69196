"""The border: open_clip's keywords in, validated tensors of one dtype out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kdlosses.checks import as_scale, check_features, check_finite, check_same_rows, check_same_width


@dataclass(eq=False)
class Inputs:
    """Validated arguments of one call: features as they came, scales in ``dtype``, that of the computation.

    The teacher's are detached.
    """

    dtype: torch.dtype
    image: Tensor
    text: Tensor
    scale: Tensor
    teacher_image: Tensor | None
    teacher_text: Tensor | None
    teacher_scale: Tensor | None
    masked_image: Tensor | None


def read_inputs(
    image: Tensor,
    text: Tensor,
    scale: float | Tensor,
    teacher_image: Tensor | None,
    teacher_text: Tensor | None,
    teacher_scale: float | Tensor | None,
    masked_image: Tensor | None,
    check: bool,
) -> Inputs:
    """Validate shapes, rows, devices and dtypes; the computation is in float32 (float64 if any features are).

    Raises:
        ValueError: naming the argument, what was expected and what was given.
    """
    features = {"image_features": image, "text_features": text}
    optional = {
        "dist_image_features": teacher_image,
        "dist_text_features": teacher_text,
        "masked_image_features": masked_image,
    }
    features.update({name: value for name, value in optional.items() if value is not None})
    _check(features)
    dtype = torch.float64 if any(f.dtype == torch.float64 for f in features.values()) else torch.float32
    scales = {"logit_scale": as_scale("logit_scale", scale, image, dtype)}
    if teacher_scale is not None:
        scales["dist_logit_scale"] = as_scale("dist_logit_scale", teacher_scale, image, dtype).detach()
    if check:
        check_finite({**features, **scales})
    return Inputs(
        dtype=dtype,
        image=image,
        text=text,
        scale=scales["logit_scale"],
        teacher_image=None if teacher_image is None else teacher_image.detach(),
        teacher_text=None if teacher_text is None else teacher_text.detach(),
        teacher_scale=scales.get("dist_logit_scale"),
        masked_image=masked_image,
    )


def _check(features: dict[str, Tensor]) -> None:
    for name, value in features.items():
        check_features(name, value)
    check_same_rows(features)
    widths = [("image_features", "text_features"), ("dist_image_features", "dist_text_features")]
    widths.append(("image_features", "masked_image_features"))
    for first, second in widths:
        if first in features and second in features:
            check_same_width(first, features[first], second, features[second])
