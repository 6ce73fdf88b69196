"""Single flipped bits, as bad disks and memory leave them."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path


def flip(path: Path, at: int, bit: int = 6) -> None:
    """Flip one bit of the byte at an offset."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    path.write_bytes(data)


def flip_largest_record(path: Path) -> str:
    """Flip one bit in the middle of the largest record of a `torch.save`d file; return the record's name."""
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda info: info.file_size)
    data = path.read_bytes()
    at = largest.header_offset
    name, extra = struct.unpack("<HH", data[at + 26 : at + 30])
    flip(path, at + 30 + name + extra + largest.file_size // 2 // 4 * 4 + 3)
    return largest.filename
