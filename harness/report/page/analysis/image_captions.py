"""Images and captions of a retrieval set that a report shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate, islice
from typing import Any

from PIL import Image

from harness.config import EvalSet
from harness.evaluate.eval_loader import EvalLoader, NamedErrorsDataset
from harness.evaluate.layout import Layout, inspect_layout, set_error
from harness.evaluate.native import native_set_error
from harness.report.page.thumbnails import shrink


@dataclass(frozen=True)
class ImageCaptions:
    """First images of a retrieval set as thumbnails, with their captions.

    Args:
        item: the set; its path is a folder.
        total: number of images in the set; None if unknown.
        images: thumbnails, as `shrink` makes them.
        captions: captions of each image, at least one.
    """

    item: EvalSet
    total: int | None
    images: list[Image.Image] = field(default_factory=list)
    captions: list[list[str]] = field(default_factory=list)

    @property
    def texts(self) -> list[str]:
        """All captions, image by image."""
        return [text for texts in self.captions for text in texts]

    @property
    def owners(self) -> list[int]:
        """Image index of each text."""
        return [number for number, texts in enumerate(self.captions) for _ in texts]

    @property
    def firsts(self) -> list[int]:
        """Index of each image's first text."""
        return [0, *accumulate(len(texts) for texts in self.captions)][:-1]


def read_image_captions(item: EvalSet, limit: int) -> ImageCaptions:
    """Read the first ``limit`` images of a retrieval set.

    Raises:
        UserError: the set is missing or unreadable.
    """
    layout = inspect_layout(item)
    pairs = ImageCaptions(item, layout.images)
    for image, captions in samples(item, layout, shrink, limit):
        pairs.images.append(image)
        pairs.captions.append([text for text in captions if text.strip()] or [""])
    return pairs


def samples(
    item: EvalSet, layout: Layout, transform: Callable[[Any], Any], limit: int | None = None
) -> Iterator[tuple[Any, Any]]:
    """Iterate over (transformed image, captions or label), as clip_benchmark reads them.

    Raises:
        UserError: a sample cannot be decoded.
    """
    loader = EvalLoader(item, layout, transform, batch_size=1, workers=0)
    try:
        yield from islice(loader.images.opening(NamedErrorsDataset(loader.dataset)), limit)
    except (ValueError, OSError) as error:
        reason = " ".join(str(error).split())[:300]
        make_error = set_error if item.dataset is None else native_set_error
        raise make_error(item, f"a sample cannot be read ({reason}); replace it or rebuild the set") from error
