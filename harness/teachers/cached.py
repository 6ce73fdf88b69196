"""Cached teacher outputs of one sample, and of a batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from harness.data.view import Box

# A teacher's embeddings of image and caption, float16: [D] of a sample, [B, D] of a batch.
Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class CachedView:
    """One view of one sample, as the teachers saw it.

    Attributes:
        box: the crop; None for the whole image.
        map: the affine map of the augmentation, float32 [2, 3]; None for none.
        features: each teacher's embeddings of this view and of the caption, float16 [D] each.
    """

    box: Box | None
    map: Tensor | None
    features: tuple[Pair, ...]


@dataclass(frozen=True)
class CachedTeacher:
    """What the teachers said about a batch.

    Attributes:
        features: each teacher's embeddings of the images and of the captions, float16 [B, D] each.
        maps: the affine maps that the student's images still need, float32 [B, 2, 3]; None for none.
    """

    features: tuple[Pair, ...]
    maps: Tensor | None

    @classmethod
    def stack(cls, views: list[CachedView]) -> CachedTeacher:
        """Put the views of a batch's samples together."""
        each = zip(*(view.features for view in views), strict=True)
        features = tuple(
            (torch.stack([image for image, _ in pairs]), torch.stack([text for _, text in pairs])) for pairs in each
        )
        maps = [view.map for view in views if view.map is not None]
        return cls(features, torch.stack(maps) if maps else None)

    def part(self, rows: slice) -> CachedTeacher:
        """Return some of the rows."""
        features = tuple((image[rows], text[rows]) for image, text in self.features)
        return CachedTeacher(features, None if self.maps is None else self.maps[rows])

    def to(self, device: torch.device) -> CachedTeacher:
        """Return a copy on a device, without waiting for it."""
        features = tuple(
            (image.to(device, non_blocking=True), text.to(device, non_blocking=True)) for image, text in self.features
        )
        return CachedTeacher(features, None if self.maps is None else self.maps.to(device, non_blocking=True))

    def pin_memory(self) -> CachedTeacher:
        """Return a copy in page-locked memory."""
        features = tuple((image.pin_memory(), text.pin_memory()) for image, text in self.features)
        return CachedTeacher(features, None if self.maps is None else self.maps.pin_memory())
