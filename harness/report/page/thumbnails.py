"""Thumbnails of evaluation images, to embed in a page."""

from __future__ import annotations

import base64
import hashlib
import io
from dataclasses import dataclass

from PIL import Image

SIDE = 96  # pixels of the longer side; displayed at 64 to 80, with reserve for high-density screens
_QUALITY = 78


@dataclass(frozen=True)
class Thumbnail:
    """WebP image with its alternative text."""

    data: bytes
    alt: str

    @property
    def uri(self) -> str:
        """Data URI of the image."""
        return f"data:image/webp;base64,{base64.b64encode(self.data).decode()}"

    @property
    def file(self) -> str:
        """File name, a hash of the content."""
        return f"image-{hashlib.sha256(self.data).hexdigest()[:12]}.webp"


def shrink(image: Image.Image) -> Image.Image:
    """Downscaled RGB copy whose longer side is at most SIDE; transparency becomes white."""
    image = image.copy()
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def encode_thumbnail(image: Image.Image, alt: str) -> Thumbnail:
    """Encode an image that `shrink` has downscaled."""
    out = io.BytesIO()
    image.save(out, "webp", quality=_QUALITY, method=4)
    return Thumbnail(out.getvalue(), alt)
