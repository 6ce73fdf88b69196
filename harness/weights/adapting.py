"""Differences between weights and model that open_clip's loader evens out: here the same, and each is logged."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from open_clip.model import resize_text_pos_embed
from timm.layers import resample_abs_pos_embed
from torch import Size, Tensor, nn

logger = logging.getLogger(__name__)

_BIAS = "logit_bias"
_TEXT = ("positional_embedding", "text.positional_embedding")


def adapt(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Interpolate position tables of another size, of images and texts, and add a `logit_bias` that is missing.

    A table whose width differs too, or whose positions are no square, is left to be refused.

    Args:
        state: under the model's names.
        model: what it is for.
    """
    wanted: dict[str, Tensor] = model.state_dict()
    adapted = dict(state)
    for name, grid, prefix in _image_tables(model):
        if name in state and _differs_in_length(state[name], wanted[name]) and _is_square(state[name], prefix):
            table = state[name].reshape(1, *state[name].shape[-2:])
            resized = resample_abs_pos_embed(table.float(), list(grid), num_prefix_tokens=prefix)
            adapted[name] = resized.reshape(-1, *resized.shape[-2:]) if wanted[name].ndim == 3 else resized[0]
    for name in _TEXT:
        if name in state and name in wanted and _differs_in_length(state[name], wanted[name]):
            one = {name: state[name].float()}
            resize_text_pos_embed(one, model)
            adapted |= one
    if _BIAS in wanted and _BIAS not in state:
        adapted[_BIAS] = torch.zeros_like(wanted[_BIAS])
    return adapted


def say_adapted(path: Path | str, shapes: Mapping[str, Size], model: nn.Module) -> None:
    """Log what was interpolated or added.

    Args:
        path: the file, for the message.
        shapes: of its entries, by name.
        model: with its weights.
    """
    wanted: dict[str, Tensor] = model.state_dict()
    names = (*(name for name, _, _ in _image_tables(model)), *(name for name in _TEXT if name in wanted))
    for name in names:
        # A text tower may be part of the model in the file, and a module of its own in the model.
        plain = name.removeprefix("text.")
        was = shapes.get(name, shapes.get(plain, shapes.get(f"text.{plain}")))
        if was is not None and was != wanted[name].shape:
            now = "x".join(map(str, wanted[name].shape))
            logger.info(
                "%s: the position table %s is interpolated, from %s to %s", path, name, "x".join(map(str, was)), now
            )
    if _BIAS in wanted and _BIAS not in shapes:
        logger.info("%s has no logit_bias, as a CLIP has none: it is set to 0", path)


def _image_tables(model: nn.Module) -> Iterator[tuple[str, tuple[int, int], int]]:
    """Each position table of the image tower: its name, its grid, and how many rows before it are no patches."""
    visual: Any = model.visual
    wanted = model.state_dict()
    trunk: Any = getattr(visual, "trunk", None)
    if "visual.positional_embedding" in wanted:
        yield "visual.positional_embedding", _pair(visual.grid_size), 1
    if "visual.attnpool.positional_embedding" in wanted:
        rows, columns = (side // 32 for side in _pair(visual.image_size))
        yield "visual.attnpool.positional_embedding", (rows, columns), 1
    if "visual.trunk.pos_embed" in wanted and hasattr(getattr(trunk, "patch_embed", None), "grid_size"):
        grid = _pair(trunk.patch_embed.grid_size)
        prefix = wanted["visual.trunk.pos_embed"].shape[-2] - grid[0] * grid[1]
        if wanted["visual.trunk.pos_embed"].ndim == 3 and prefix >= 0:
            yield "visual.trunk.pos_embed", grid, prefix


def _differs_in_length(table: Tensor, wanted: Tensor) -> bool:
    same = table.ndim == wanted.ndim and table.shape[-1] == wanted.shape[-1] and table.is_floating_point()
    return same and table.ndim >= 2 and table.shape[-2] != wanted.shape[-2]


def _is_square(table: Tensor, prefix: int) -> bool:
    count = table.shape[-2] - prefix
    return count > 0 and math.isqrt(count) ** 2 == count


def _pair(value: Any) -> tuple[int, int]:
    return (value[0], value[1]) if isinstance(value, list | tuple) else (value, value)
