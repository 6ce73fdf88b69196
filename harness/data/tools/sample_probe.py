"""One sample as the tools see it: what it measures, or what is wrong with it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from harness.config.data import IMAGE_FORMATS
from harness.data.decode import decode
from harness.data.regular_files import check_regular
from harness.data.samples import RawSample, SkippedSample
from harness.images import open_image


@dataclass(frozen=True)
class SampleInfo:
    """A usable sample: its caption as training reads it, and its image's sides in pixels."""

    caption: str
    width: int
    height: int


@dataclass(frozen=True)
class SampleProbe:
    """Decodes a sample as training does.

    Args:
        max_pixels: as the recipe's data.max_image_pixels.
        fast: read no more of an image than its header.
        formats: as the recipe's data.image_formats.
    """

    max_pixels: int
    fast: bool
    formats: Sequence[str] = IMAGE_FORMATS

    def __call__(self, raw: RawSample) -> SampleInfo | SkippedSample:
        """Return what the sample measures, or what is wrong with it."""
        return self._header(raw) if self.fast else self._pixels(raw)

    def _pixels(self, raw: RawSample) -> SampleInfo | SkippedSample:
        decoded = decode(raw, self.max_pixels, self.formats)
        if isinstance(decoded, SkippedSample):
            return decoded
        height, width = decoded[0].shape[-2:]
        return SampleInfo(decoded[1], width, height)

    def _header(self, raw: RawSample) -> SampleInfo | SkippedSample:
        caption = decode(replace(raw, image=_PIXEL))  # a fault now is the caption's
        if isinstance(caption, SkippedSample):
            return caption
        try:
            if isinstance(raw.image, Path):
                check_regular(raw.image)
            with open_image(raw.image or b"", self.formats) as image:
                (width, height), mode = image.size, image.mode
        except MemoryError:
            raise
        except Exception:  # a broken header makes PIL raise anything; training's decoder has the words for it
            return self._pixels(raw)
        # Too large an image, or one of a rare mode, is for training's decoder to judge too.
        if width * height > self.max_pixels or mode not in ("RGB", "L", "P", "RGBA", "CMYK"):
            return self._pixels(raw)
        return SampleInfo(caption[1], width, height)


def _one_pixel() -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (1, 1)).save(content, "png")
    return content.getvalue()


_PIXEL = _one_pixel()
