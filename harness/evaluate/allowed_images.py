"""Readers of others, webdataset's and torchvision's among them, open images of the set's formats and no others."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeVar

from PIL import Image

from harness.config import EvalSet
from harness.images import open_image

T = TypeVar("T")


def formats_of(item: EvalSet) -> tuple[str, ...]:
    """Return the formats that images of a set may have; one of clip_benchmark's, GTSRB, is published as PPM."""
    return item.image_formats if item.dataset is None else (*item.image_formats, "ppm")


def restrict(formats: tuple[str, ...], _worker: int = 0) -> None:
    """Restrict `PIL.Image.open` for the rest of this process, a data worker."""
    Image.open = partial(_open, formats)  # type: ignore[assignment]


def each_restricted(formats: tuple[str, ...], items: Iterable[T]) -> Iterator[T]:
    """Yield the items; while one is made, `PIL.Image.open` is restricted."""
    iterator = iter(items)
    while True:
        with _restricted(formats):
            try:
                item = next(iterator)
            except StopIteration:
                return
        yield item


@contextmanager
def _restricted(formats: tuple[str, ...]) -> Iterator[None]:
    before = Image.open
    restrict(formats)
    try:
        yield
    finally:
        Image.open = before


def _open(formats: tuple[str, ...], fp: str | bytes | os.PathLike[str] | IO[bytes], *_: Any, **__: Any) -> Image.Image:
    return open_image(Path(os.fsdecode(fp)) if isinstance(fp, str | bytes | os.PathLike) else fp, formats)
