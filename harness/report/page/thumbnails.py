"""Small pictures of evaluation images, as bytes that a page can hold."""

from __future__ import annotations

import base64
import hashlib
import io
from dataclasses import dataclass

from PIL import Image

SIDE = 96  # pixels of the longer side; shown at 64 to 80, so that a dense screen has something to show
_QUALITY = 78


@dataclass(frozen=True)
class Thumbnail:
    """A WebP picture and what it shows."""

    data: bytes
    alt: str

    @property
    def uri(self) -> str:
        """As a data URI."""
        return f"data:image/webp;base64,{base64.b64encode(self.data).decode()}"

    @property
    def file(self) -> str:
        """Name of its file: the same picture has the same one."""
        return f"image-{hashlib.sha256(self.data).hexdigest()[:12]}.webp"


def shrink(image: Image.Image) -> Image.Image:
    """A copy in RGB whose longer side is at most SIDE; transparent parts become white."""
    image = image.copy()
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def encode_thumbnail(image: Image.Image, alt: str) -> Thumbnail:
    """Encode a picture that `shrink` has made."""
    out = io.BytesIO()
    image.save(out, "webp", quality=_QUALITY, method=4)
    return Thumbnail(out.getvalue(), alt)
