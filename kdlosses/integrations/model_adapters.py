"""What a CLIP model gives a loss: embeddings, scale and bias under open_clip's names, whoever wrote the model.

No framework is imported: a model is asked by what its forward takes and what it gives.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

Batch = Mapping[str, Any] | Sequence[Tensor]
_IMAGE = ("image", "pixel_values")
_TEXT = ("text", "input_ids")
_OPEN_CLIP = ("image_features", "text_features", "logit_scale", "logit_bias")
_HUGGING_FACE = ("image_embeds", "text_embeds")


def features_of(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """Call ``model`` on ``batch`` and name what it gives as `kdlosses.DistillLoss` takes it.

    Two kinds of models: those of transformers with both towers (``CLIPModel``, ``SiglipModel``, ``ChineseCLIPModel``),
    whose forward takes ``pixel_values`` and ``input_ids`` by name, and those of open_clip or like them, whose forward
    takes an image and a text and gives a tuple or a dict; also within DDP and ``torch.compile``.

    Args:
        model: a student or a teacher.
        batch: a mapping, of which the model gets the entries that its forward takes (image and text under either
            framework's name), or a pair of images and texts.

    Returns:
        ``image_features`` and ``text_features`` ``[B, D]`` as the model gives them, ``logit_scale`` exponentiated, and
        ``logit_bias`` where the model has one.

    Raises:
        ValueError: where the batch has no image or no text, or where the model gives no embeddings or has no scale.

    Gradient:
        Flows to the model, unless the caller forbids it.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from kdlosses.integrations.model_adapters import features_of
        >>> class TinyCLIP(nn.Module):
        ...     def forward(self, image, text):
        ...         return image, text, torch.tensor(100.0)
        >>> features = features_of(TinyCLIP(), (torch.eye(4), torch.eye(4)))
        >>> list(features)
        ['image_features', 'text_features', 'logit_scale']
        >>> list(features_of(TinyCLIP(), {"pixel_values": torch.eye(4), "input_ids": torch.eye(4)})) == list(features)
        True
    """
    arguments, keywords = arguments_for(model, batch)
    return named_features(model, model(*arguments, **keywords))


def arguments_for(model: nn.Module, batch: Batch) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
    """What of ``batch`` to call ``model`` with, by position and by name; the first half of `features_of`.

    Args:
        model: as in `features_of`.
        batch: likewise.

    Example:
        >>> from torch import nn
        >>> from kdlosses.integrations.model_adapters import arguments_for
        >>> class LikeTransformers(nn.Module):
        ...     def forward(self, input_ids, pixel_values, attention_mask=None): ...
        >>> batch = {"image": 1, "text": 2, "attention_mask": 3, "label": 4}
        >>> arguments_for(LikeTransformers(), batch)
        ((), {'input_ids': 2, 'pixel_values': 1, 'attention_mask': 3})
        >>> arguments_for(nn.Identity(), batch)  # open_clip's way: an image and a text
        ((1, 2), {})
    """
    core = bare_model(model)
    image, text = _pair(core, batch)
    takes = inspect.signature(type(core).forward).parameters  # the class's: accelerate replaces the instance's
    if not _is_hugging_face(core):
        return (image, text), {}
    found = {**(batch if isinstance(batch, Mapping) else {}), "pixel_values": image, "input_ids": text}
    # Not those by which a transformers model computes a loss itself or gives a tuple.
    return (), {name: found[name] for name in takes if name in found and name not in ("return_loss", "return_dict")}


def names_taken(model: nn.Module) -> set[str]:
    """The names of all batch entries that `features_of` may call ``model`` with.

    Args:
        model: as in `features_of`.

    Example:
        >>> from torch import nn
        >>> from kdlosses.integrations.model_adapters import names_taken
        >>> sorted(names_taken(nn.Identity()))
        ['image', 'input_ids', 'pixel_values', 'text']
    """
    core = bare_model(model)
    takes = set(inspect.signature(type(core).forward).parameters) if _is_hugging_face(core) else set()
    return {*takes, *_IMAGE, *_TEXT} - {"self", "kwargs"}


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
    core = bare_model(model)
    return _hugging_face(core, output) if _is_hugging_face(core) else _open_clip(core, output)


def embedding_width(model: nn.Module) -> int:
    """The width D of the embeddings that ``model`` gives.

    Args:
        model: as in `features_of`.

    Raises:
        ValueError: if the model does not state it.

    Example:
        >>> from torch import nn
        >>> from kdlosses.integrations.model_adapters import embedding_width
        >>> model = nn.Module()
        >>> model.text_projection = nn.Linear(64, 32)
        >>> embedding_width(model)
        32
    """
    core = bare_model(model)
    config = getattr(core, "config", None)
    text = getattr(core, "text", core)  # open_clip's CLIP has its text tower's layers itself
    layer = getattr(text, "text_projection", None)
    sizes = (
        getattr(config, "projection_dim", None),
        getattr(getattr(config, "text_config", None), "projection_size", None),
        layer.out_features if isinstance(layer, nn.Linear) else None,
        layer.shape[1] if isinstance(layer, Tensor) else None,
        getattr(text, "output_dim", None),
    )
    for width in sizes:
        if isinstance(width, int):
            return width
    raise ValueError(
        f"{type(core).__name__} does not say how wide its embeddings are; build the loss yourself, with student_dim "
        "and teacher_dim"
    )


def vocabulary_size(model: nn.Module) -> int | None:
    """How many tokens ``model`` knows; None if it does not state it.

    Args:
        model: as in `features_of`.

    Example:
        >>> from torch import nn
        >>> from kdlosses.integrations.model_adapters import vocabulary_size
        >>> model = nn.Module()
        >>> model.vocab_size = 49408
        >>> vocabulary_size(model), vocabulary_size(nn.Identity())
        (49408, None)
    """
    core = bare_model(model)
    sizes = (
        getattr(getattr(getattr(core, "config", None), "text_config", None), "vocab_size", None),
        getattr(core, "vocab_size", None),
        getattr(getattr(core, "text", None), "vocab_size", None),
    )
    return next((size for size in sizes if isinstance(size, int)), None)


def bare_model(model: nn.Module) -> nn.Module:
    """The model within DDP and ``torch.compile``, in any order.

    Args:
        model: wrapped or not.

    Example:
        >>> from torch import nn
        >>> from kdlosses.integrations.model_adapters import bare_model
        >>> model, wrapper = nn.Linear(4, 4), nn.Module()
        >>> wrapper.module = model  # as in DistributedDataParallel
        >>> bare_model(wrapper) is model
        True
    """
    while True:
        inner = model._modules.get("module", model._modules.get("_orig_mod"))
        if inner is None:
            return model
        model = inner


def _is_hugging_face(core: nn.Module) -> bool:
    return bool({"pixel_values", "input_ids"} & inspect.signature(type(core).forward).parameters.keys())


def _pair(core: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    if isinstance(batch, Mapping):
        return _entry(core, batch, "image", _IMAGE), _entry(core, batch, "text", _TEXT)
    if isinstance(batch, Sequence) and len(batch) == 2:
        return batch[0], batch[1]
    raise ValueError(
        f"a batch for {type(core).__name__} must be a mapping or a pair (images, texts), got {type(batch).__name__}"
        + (f" of {len(batch)}" if isinstance(batch, Sequence) else "")
    )


def _entry(core: nn.Module, batch: Mapping[str, Any], what: str, names: Sequence[str]) -> Tensor:
    for name in names:
        value: Tensor | None = batch.get(name)
        if value is not None:
            return value
    raise ValueError(
        f"the batch for {type(core).__name__} has no {what}: {' or '.join(reversed(names))} is missing among "
        f"{', '.join(map(str, batch)) or 'nothing'}; have the data set or its collator give it"
    )


def _hugging_face(core: nn.Module, output: Any) -> dict[str, Tensor]:
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


def _open_clip(core: nn.Module, output: Any) -> dict[str, Tensor]:
    if isinstance(output, tuple) and len(output) in (3, 4):
        output = dict(zip(_OPEN_CLIP, output, strict=False))
    scalars = ("logit_scale", "logit_bias")
    if (
        not isinstance(output, Mapping)
        or any(output.get(name) is None for name in _OPEN_CLIP[:3])
        or any(isinstance(output.get(name), Tensor) and output[name].numel() != 1 for name in scalars)
    ):
        raise _no_embeddings(core, output, _OPEN_CLIP[:3])
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
