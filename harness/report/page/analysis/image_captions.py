"""The images and captions of a retrieval set that a report looks at."""

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
    """The first images of a set, small, with their captions.

    Args:
        item: the set, its path a folder.
        total: how many images it has; None where nobody has counted.
        images: as `shrink` makes them.
        captions: of each image, at least one.
        owners: for each caption in turn, the number of its image.
    """

    item: EvalSet
    total: int | None
    images: list[Image.Image] = field(default_factory=list)
    captions: list[list[str]] = field(default_factory=list)

    @property
    def texts(self) -> list[str]:
        """All captions in turn."""
        return [text for texts in self.captions for text in texts]

    @property
    def owners(self) -> list[int]:
        """For each of the texts, the number of its image."""
        return [number for number, texts in enumerate(self.captions) for _ in texts]

    @property
    def firsts(self) -> list[int]:
        """For each image, the number of its first text."""
        return [0, *accumulate(len(texts) for texts in self.captions)][:-1]


def read_image_captions(item: EvalSet, limit: int) -> ImageCaptions:
    """Read the first ``limit`` images of a retrieval set.

    Raises:
        UserError: the set is not there or cannot be read.
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
    """The set's (transformed image, captions or label), as clip_benchmark reads them.

    Raises:
        UserError: a sample cannot be decoded.
    """
    dataset = EvalLoader(item, layout, transform, batch_size=1, workers=0).dataset
    try:
        yield from islice(NamedErrorsDataset(dataset), limit)
    except (ValueError, OSError) as error:
        reason = " ".join(str(error).split())[:300]
        say = set_error if item.dataset is None else native_set_error
        raise say(item, f"a sample cannot be read ({reason}); replace it or build the set anew") from error
