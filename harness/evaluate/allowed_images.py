"""Readers of others, webdataset's and torchvision's among them, open a set's images as training does."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar
from unittest.mock import patch

import torch
from PIL import Image
from webdataset.autodecode import decoders

from harness.config import EvalSet
from harness.data.decode import image_bytes, image_faults, to_rgb
from harness.data.samples import Unusable
from harness.images import open_image

T = TypeVar("T")
_SAME_FOR_ALL = ("RGB", "L", "CMYK")  # modes that stock converts as training does

# webdataset unpickles every member of a sample with such an ending, though no set has use for it: that could run code.
_NEVER_RUN = dict.fromkeys(("pkl", "pickle", "pyd", "pth"), bytes)


class UndecodableImageError(ValueError):
    """An image of a set that cannot be decoded, with the reason."""


class SetImages:
    """Takes the place of `PIL.Image.open` while others read a set: only its formats, and the pixels that training sees.

    Args:
        item: the set.
        workers: data workers that will read it.
    """

    def __init__(self, item: EvalSet, workers: int = 0) -> None:
        # One of clip_benchmark's own sets, GTSRB, is published as PPM.
        self._formats = item.image_formats if item.dataset is None else (*item.image_formats, "ppm")
        self._stock = item.stock_decoding
        self._counts = torch.zeros(workers + 1, dtype=torch.int64)  # one for each process, as they have no lock
        if workers:
            self._counts.share_memory_()

    @property
    def num_differing(self) -> int:
        """How many of the images read are others to stock clip_benchmark than to training."""
        return int(self._counts.sum())

    def install(self) -> None:
        """Stay in its place for the rest of this process, a data worker."""
        Image.open = self._open  # type: ignore[assignment]
        decoders.update(_NEVER_RUN)

    def opening(self, items: Iterable[T]) -> Iterator[T]:
        """Yield the items; while one is made, images are opened here."""
        self._counts.zero_()
        iterator = iter(items)
        while True:
            with self._installed():
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item

    @contextmanager
    def _installed(self) -> Iterator[None]:
        before = Image.open
        with patch.dict(decoders):
            self.install()
            try:
                yield
            finally:
                Image.open = before

    def _open(self, fp: str | bytes | os.PathLike[str] | IO[bytes], *_: Any, **__: Any) -> Image.Image:
        path = Path(os.fsdecode(fp)) if isinstance(fp, str | bytes | os.PathLike) else None
        try:
            content = image_bytes(path or fp.read())  # type: ignore[union-attr]
            with image_faults():
                image = open_image(content, self._formats)
                image.load()
                return self._seen(image)
        except Unusable as fault:
            name = path or getattr(fp, "name", None)  # of a file; a shard's member has none
            known = name is None or str(name) in fault.reason
            raise UndecodableImageError(fault.reason if known else f"{name}: {fault.reason}") from fault

    def _seen(self, image: Image.Image) -> Image.Image:
        if image.mode in _SAME_FOR_ALL and "transparency" not in image.info:
            return image
        try:
            rgb = to_rgb(image)
        except Unusable:
            if not self._stock:
                raise
            return image
        if not _equal_to_stock(image, rgb):
            worker = torch.utils.data.get_worker_info()
            self._counts[0 if worker is None else worker.id + 1] += 1
        return image if self._stock else rgb


def _equal_to_stock(image: Image.Image, rgb: Image.Image) -> bool:
    plain = image.copy()
    plain.info.pop("transparency", None)  # which stock drops, and Pillow warns of
    try:
        return plain.convert("RGB").tobytes() == rgb.tobytes()
    except ValueError:  # a mode that this Pillow cannot convert
        return False
