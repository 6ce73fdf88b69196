"""The border: open_clip's keywords in, validated tensors of one dtype out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kdlosses.checks import as_scale, check_features, check_finite, check_same_rows, check_same_width


@dataclass(eq=False)
class Inputs:
    """Validated arguments of one call, in the dtype of the computation; the teacher's are detached."""

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
    """Validate shapes, rows, devices and dtypes, and promote everything to float32 (float64 if any input is).

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
    cast = {name: value.to(dtype) for name, value in features.items()}
    for name in ("dist_image_features", "dist_text_features"):
        if name in cast:
            cast[name] = cast[name].detach()
    return Inputs(
        image=cast["image_features"],
        text=cast["text_features"],
        scale=scales["logit_scale"],
        teacher_image=cast.get("dist_image_features"),
        teacher_text=cast.get("dist_text_features"),
        teacher_scale=scales.get("dist_logit_scale"),
        masked_image=cast.get("masked_image_features"),
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
