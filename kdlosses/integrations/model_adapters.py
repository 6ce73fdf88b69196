"""What a CLIP model gives a loss: embeddings, scale and bias under open_clip's names, whoever wrote the model.

No framework is imported: a model is asked by what its forward takes and what it gives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import Parameter, Signature
from typing import Any

from torch import Tensor, nn

from kdlosses.integrations.model_outputs import named_features
from kdlosses.integrations.model_sizes import embedding_width, vocabulary_size
from kdlosses.integrations.wrappers import (
    IMAGE,
    TEXT,
    bare_model,
    caller_of,
    chain_of,
    is_called_by_name,
    parameters_of,
    takes,
)

__all__ = [
    "Batch",
    "arguments_for",
    "bare_model",
    "embedding_width",
    "features_of",
    "named_features",
    "names_taken",
    "vocabulary_size",
]

Batch = Mapping[str, Any] | Sequence[Tensor]


def features_of(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """Call ``model`` on ``batch`` and name what it gives as `kdlosses.DistillLoss` takes it.

    Two kinds of models: those of transformers with both towers (``CLIPModel``, ``SiglipModel``, ``ChineseCLIPModel``),
    whose forward takes ``pixel_values`` and ``input_ids`` by name, and those of open_clip or like them, whose forward
    takes an image and a text and gives a tuple or a dict. Also within DDP, ``torch.compile``, peft and other wrappers
    that hand on what they are called with; a wrapper with a forward of its own is called as that says.

    Args:
        model: a student or a teacher.
        batch: a mapping, of which the model gets the entries that its forward takes (image and text under either
            framework's name), or a pair of images and texts.

    Returns:
        ``image_features`` and ``text_features`` ``[B, D]`` as the model gives them, ``logit_scale`` exponentiated, and
        ``logit_bias`` where the model has one.

    Raises:
        ValueError: where the batch has no image or no text, where the model gives no embeddings or has no scale, where
            its forward cannot be called with both, and where a wrapper holds several models.

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
        >>> arguments_for(nn.Bilinear(4, 4, 4), batch)  # open_clip's way: an image and a text
        ((1, 2), {})
    """
    image, text = _pair(bare_model(model), batch)
    arguments: tuple[Tensor, ...] = ()
    keywords: dict[str, Any] = {}
    if is_called_by_name(model):
        found = {**(batch if isinstance(batch, Mapping) else {}), "pixel_values": image, "input_ids": text}
        # Not those by which a transformers model computes a loss itself or gives a tuple.
        names = [name for name in _names_taken(model) if name not in ("return_loss", "return_dict")]
        keywords = {name: found[name] for name in names if name in found}
    else:
        arguments, keywords = _by_position(model, image, text)
    _check_callable(model, arguments, keywords)
    return arguments, keywords


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
    names = _names_taken(model) if is_called_by_name(model) else []
    return {*names, *IMAGE, *TEXT} - {"args", "kwargs"}


def _names_taken(model: nn.Module) -> list[str]:
    """What the first module that says what it takes may be called with, and what it hands on may be."""
    names: dict[str, None] = {}
    for module in chain_of(model)[caller_of(model) :]:
        names |= dict.fromkeys(parameters_of(module))
        if not takes(module, Parameter.VAR_KEYWORD):
            break
    return list(names)


def _by_position(model: nn.Module, image: Tensor, text: Tensor) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
    """An image and a text; by name where a wrapper hands on nothing else."""
    chain, at = chain_of(model), caller_of(model)
    outer = [one for one in chain[:at] if takes(one, Parameter.VAR_KEYWORD)]
    if all(takes(one, Parameter.VAR_POSITIONAL) for one in outer):
        return (image, text), {}
    return (), dict(zip(parameters_of(chain[at]), (image, text), strict=False))


def _check_callable(model: nn.Module, arguments: tuple[Tensor, ...], keywords: dict[str, Any]) -> None:
    parameters = parameters_of(model)
    try:
        if parameters:
            Signature(list(parameters.values())).bind(*arguments, **keywords)
    except TypeError as error:
        raise ValueError(
            f"{type(model).__name__}.forward({', '.join(parameters)}) cannot be called with an image and a text "
            f"({error}); have it take both, as (image, text) or by transformers' names (pixel_values, input_ids), or "
            "hand on *args and **kwargs"
        ) from error


def _pair(core: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    if isinstance(batch, Mapping):
        return _entry(core, batch, "image", IMAGE), _entry(core, batch, "text", TEXT)
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
