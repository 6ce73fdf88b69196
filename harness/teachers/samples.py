"""Which sample an entry of a cache belongs to, and whether it is still the same."""

from __future__ import annotations

import hashlib
import zlib
from pathlib import Path

from harness.data.samples import RawSample


def sample_id(raw: RawSample) -> int:
    """Return 63 bits of key and caption: rows of a CSV may share an image and differ in the caption only."""
    return _hash(raw.key.encode("utf-8", "surrogateescape") + b"\0" + _bytes(raw.caption))


def key_id(raw: RawSample) -> int:
    """Return 63 bits of the key alone, to tell a changed caption from a sample that is not there."""
    return _hash(raw.key.encode("utf-8", "surrogateescape"))


def image_check(raw: RawSample) -> int:
    """Return the CRC-32 of the image file's content."""
    image = raw.image.read_bytes() if isinstance(raw.image, Path) else raw.image
    return zlib.crc32(image or b"")


def _bytes(caption: bytes | str | None) -> bytes:
    if caption is None:
        return b""
    # A CSV is read with undecodable bytes kept as surrogates.
    return caption if isinstance(caption, bytes) else caption.encode("utf-8", "surrogateescape")


def _hash(content: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big") >> 1
