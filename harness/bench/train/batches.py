"""Batches for the benchmark: the recipe's own data, fixed batches on the device, or generated JPEG files."""

from __future__ import annotations

import csv
import random
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from harness.config import Recipe
from harness.data import Batch
from harness.errors import UserError

LIVE, SYNTHETIC, DECODE = "live", "synthetic", "decode"
# Batches that stay on the device, and as many worth of files.
KEPT = 2
# As wide and as well compressed as pictures from the web: about 60 kB each.
_SIZE, _COARSE, _NOISE, _QUALITY = (480, 360), (16, 12), 6.0, 90
_WORDS = (
    "red",
    "green",
    "small",
    "large",
    "round",
    "cat",
    "dog",
    "house",
    "tree",
    "street",
    "with",
    "under",
    "a",
    "two",
)


def adapt(recipe: Recipe, kind: str, folder: Path, steps: int) -> Recipe:
    """The recipe with its training pairs replaced as ``kind`` says.

    With a teacher cache the pairs stay, since it knows no others; `SYNTHETIC` then keeps some of them on the device.

    Args:
        recipe: whose batch size tells how many pairs are made.
        kind: `LIVE`, `SYNTHETIC` or `DECODE`.
        folder: where the files go.
        steps: that one epoch must suffice for: some loaders restart their workers for each epoch.

    Raises:
        UserError: for new pictures with a teacher cache.
    """
    pairs = KEPT * recipe.train.batch_size
    if kind == LIVE or (kind == SYNTHETIC and recipe.teacher_cache.use):
        return recipe
    if kind == SYNTHETIC:
        given: dict[str, Any] = {"train": (f"synthetic:{pairs}",), "crop": "resize", "cache": "memory", "workers": 0}
    elif recipe.teacher_cache.use:
        raise UserError("--data decode makes new pictures, which no teacher cache knows; set teacher_cache.use=false")
    else:
        listed = write_jpegs(folder, pairs, steps * recipe.train.batch_size, recipe.seed)
        given = {"train": (str(listed),), "cache": "none"}
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={**given, "root": None})})


def keep(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """The first batches, on the device, again and again."""
    return cycle([_on(device, next(batches)) for _ in range(KEPT)])


def _on(device: torch.device, value: Any) -> Any:
    """The same with every tensor in it on the device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {name: _on(device, part) for name, part in value.items()}
    if isinstance(value, tuple):
        return tuple(_on(device, part) for part in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: _on(device, getattr(value, field.name)) for field in fields(value)})
    return value


def write_jpegs(folder: Path, count: int, lines: int, seed: int, size: tuple[int, int] = _SIZE) -> Path:
    """Write seeded pictures, blotches of color with some grain; returns the list of them with captions.

    Args:
        folder: where they go.
        count: of files.
        lines: of the list, which names the files again and again.
        seed: of pixels and captions.
        size: width and height in pixels.
    """
    generator, words = np.random.default_rng(seed), random.Random(seed)
    paths = [folder.resolve() / f"{number:06d}.jpg" for number in range(count)]
    for path in paths:
        coarse = generator.integers(0, 256, (*_COARSE[::-1], 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC), dtype=np.float32)
        grain = generator.normal(0, _NOISE, smooth.shape).astype(np.float32)
        Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8)).save(path, quality=_QUALITY)
    listed = folder / "pairs.tsv"
    with listed.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(("filepath", "title"))
        writer.writerows((path, " ".join(words.choices(_WORDS, k=10))) for path in islice(cycle(paths), lines))
    return listed
