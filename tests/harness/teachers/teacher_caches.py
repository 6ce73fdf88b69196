"""Pairs whose crops can be told apart, and recipes that cache a tiny teacher over them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from harness.config import Recipe
from harness.data.samples import RawSample
from harness.teachers.datafiles import data_files
from harness.teachers.fingerprint import shared_size
from tests.harness import tiny
from tests.harness.data.pairs import write_tar

RANDOM = {"crop": "random_resized", "crop_scale": (0.4, 0.9), "augment": {"rotate": 0.2, "shift": 0.1}, "cache": "none"}
KINDS = ("shards", "csv", "synthetic")


def noise(number: int) -> bytes:
    """Encode an image of 40 x 36 pixels in random squares, which a crop or a map moves."""
    squares = np.random.default_rng(number).integers(0, 256, (9, 10, 3), dtype=np.uint8)
    pixels = squares.repeat(4, 0).repeat(4, 1)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "png")
    return content.getvalue()


def shard(path: Path, numbers: range) -> Path:
    """Write a shard of noisy pairs."""
    return write_tar(path, ((f"k{n:03d}", {"png": noise(n), "txt": f"number {n}".encode()}) for n in numbers))


def data(kind: str, root: Path, count: int = 7) -> str:
    """Write `count` pairs; return what `data.train` says. Two rows of the CSV share an image."""
    if kind == "synthetic":
        return f"synthetic:{count}"
    if kind == "shards":
        for start in range(0, count, 3):
            shard(root / "shards" / f"{start // 3:05d}.tar", range(start, min(start + 3, count)))
        return str(root / "shards")
    root.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (root / f"{number}.png").write_bytes(noise(number))
    with (root / "pairs.csv").open("w", newline="") as file:
        rows = [(f"{number}.png", f"number {number}") for number in range(count)]
        csv.writer(file).writerows([("filepath", "title"), *rows[:-1], ("0.png", "number 0 again")])
    return str(root / "pairs.csv")


def recipe(pairs: str | list[str], root: Path, /, **sections: object) -> Recipe:
    """The tiny recipe with a teacher and random views; `root` is its data root."""
    extra = sections.pop("data", {})
    return tiny.recipe(
        **{**tiny.DISTILL, "paths": {"data_root": str(root)}, **sections}, data={**RANDOM, "train": pairs, **extra}
    )


def raws(loaded: Recipe) -> Iterator[RawSample]:
    """Every training pair of a recipe, undecoded."""
    for file in data_files(loaded, shared_size(loaded)):
        source = file.open(loaded.data)
        yield from source.read([0], _refuse) if file.is_shard else (source[index] for index in range(len(source)))


def parts(root: Path) -> dict[str, bytes]:
    """The content of all files of embeddings below a folder, by name."""
    return {path.name: path.read_bytes() for path in sorted(root.rglob("*.safetensors"))}


def _refuse(broken: object) -> None:
    raise AssertionError(broken)
