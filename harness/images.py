"""The one place where image files are opened: by content, and only those of formats that were asked for."""

import io
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from harness.config.data import IMAGE_FORMATS

_FIRST_BYTES = 64
# What Pillow does not know and what is found behind the names of images all the same: a place and what stands there.
_OTHERS = (
    (0, b"%PDF", "PDF"),
    (0, b"<svg", "SVG"),
    (0, b"<?xml", "XML, such as an SVG"),
    (0, b"<!doctype html", "HTML"),
    (0, b"<html", "HTML"),
    (4, b"ftyp", "HEIF, AVIF or a video"),
    (0, b"PK\3\4", "ZIP"),
)
_OPTIONAL = ("gif", "bmp", "tiff")
_open = Image.open  # evaluation replaces that of the module
_NAMES = {"EPS": "PostScript", "JPEG2000": "JPEG 2000", "CUR": "TGA or CUR"}


class ImageFormatError(ValueError):
    """A file of a format that is not opened."""


def open_image(file: bytes | Path | IO[bytes], formats: Sequence[str] = IMAGE_FORMATS) -> ImageFile:
    """Open an image without decoding its pixels; of an animated or many-paged file that is its first frame.

    No other of Pillow's readers sees the file: that of PostScript, for one, would start Ghostscript.

    Args:
        file: its content, its path, or an open file.
        formats: as in the recipe's data.image_formats.

    Raises:
        ImageFormatError: it is of a known format that is none of `formats`.
        UnidentifiedImageError: it is no image, or its header is broken.
    """
    source = io.BytesIO(file) if isinstance(file, bytes) else file
    try:
        return _open(source, formats=[name.upper() for name in formats])
    except UnidentifiedImageError:
        name = _name_of(_begin(source))
        if name is None or name.lower() in formats:
            raise
        asked = f"; add {name.lower()} to image_formats to have it decoded" if name.lower() in _OPTIONAL else ""
        text = f"the file's content is {name}, and only {_listed(formats)} is decoded{asked}"
        raise ImageFormatError(text) from None


def _begin(source: Path | IO[bytes]) -> bytes:
    if isinstance(source, Path):
        with source.open("rb") as file:
            return file.read(_FIRST_BYTES)
    source.seek(0)
    return source.read(_FIRST_BYTES)


def _name_of(begin: bytes) -> str | None:
    """Return what Pillow calls a format, from a file's first bytes alone; None if nobody knows it."""
    Image.init()
    found = next((name for name in Image.OPEN if _accepts(name, begin)), None)
    if found is not None:
        return _NAMES.get(found, found)
    begin = begin.lstrip() if begin.lstrip().startswith(b"<") else begin
    return next((name for at, mark, name in _OTHERS if begin[at:].lower().startswith(mark.lower())), None)


def _accepts(name: str, begin: bytes) -> bool:
    """Whether the format is one that begins like this; some of Pillow's readers would have to read it all to know."""
    accept = Image.OPEN[name][1]
    try:
        return accept is not None and bool(accept(begin[:16]))
    except (IndexError, TypeError, ValueError, struct.error):
        return False


def _listed(formats: Sequence[str]) -> str:
    names = [{"webp": "WebP"}.get(name, name.upper()) for name in formats]
    return " or ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
