"""What a CLIP model's forward gives, under open_clip's names, whoever wrote the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kdlosses.integrations.wrappers import bare_model, is_called_by_name, owner_of_scale

_OPEN_CLIP = ("image_features", "text_features", "logit_scale", "logit_bias")
_HUGGING_FACE = ("image_embeds", "text_embeds")


def named_features(model: nn.Module, output: Any) -> dict[str, Tensor]:
    """What ``model`` gave, by the names of `kdlosses.DistillLoss`; the second half of `features_of`.

    Args:
        model: as in `features_of`.
        output: what its forward returned.

    Raises:
        ValueError: where there are no embeddings in it, or where the model has no scale.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from kdlosses.integrations.model_adapters import named_features
        >>> output = torch.eye(4), torch.eye(4), torch.tensor(100.0)
        >>> named_features(nn.Identity(), output)["logit_scale"]
        tensor(100.)
    """
    if isinstance(output, Mapping):  # a module of one's own may take one framework's names and give the other's
        theirs = "image_embeds" in output or ("image_features" not in output and is_called_by_name(model))
    else:
        theirs = not (isinstance(output, tuple) and len(output) in (3, 4)) and is_called_by_name(model)
    return _hugging_face(model, output) if theirs else _open_clip(model, output)


def _hugging_face(model: nn.Module, output: Any) -> dict[str, Tensor]:
    core = owner_of_scale(model)
    if not isinstance(output, Mapping) or any(output.get(name) is None for name in _HUGGING_FACE):
        raise _no_embeddings(core, output, _HUGGING_FACE)
    image, text = (output[name] for name in _HUGGING_FACE)
    scale = getattr(core, "logit_scale", None)
    if not isinstance(scale, Tensor):
        raise ValueError(f"{type(core).__name__} has no logit_scale, which the losses multiply its similarities by")
    # In float32 at least: bfloat16 rounds a scale of 100 to steps of 0.5.
    features = {
        "image_features": image,
        "text_features": text,
        "logit_scale": scale.to(torch.promote_types(scale.dtype, torch.float32)).exp(),
    }
    bias = getattr(core, "logit_bias", None)
    return features if bias is None else {**features, "logit_bias": bias}


def _open_clip(model: nn.Module, output: Any) -> dict[str, Tensor]:
    if isinstance(output, tuple) and len(output) in (3, 4):
        output = dict(zip(_OPEN_CLIP, output, strict=False))
    scalars = ("logit_scale", "logit_bias")
    if (
        not isinstance(output, Mapping)
        or any(output.get(name) is None for name in _OPEN_CLIP[:3])
        or any(isinstance(output.get(name), Tensor) and output[name].numel() != 1 for name in scalars)
    ):
        raise _no_embeddings(bare_model(model), output, _OPEN_CLIP[:3])
    return {name: output[name] for name in _OPEN_CLIP if output.get(name) is not None}


def _no_embeddings(core: nn.Module, output: Any, wanted: Sequence[str]) -> ValueError:
    if isinstance(output, Mapping):
        got = f"a dict of {', '.join(map(str, output))}"
    else:
        got = f"a {type(output).__name__}" + (f" of {len(output)}" if isinstance(output, tuple) else "")
    return ValueError(
        f"{type(core).__name__} gives {got} where {', '.join(wanted)} were expected; use a model with both towers, "
        "such as transformers' CLIPModel, SiglipModel or ChineseCLIPModel, or an open_clip model"
    )
