"""The archives of torch.save: read with the checksums that they hold, which torch.load passes over."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import torch

from harness.weights.checksums import Damaged, FileRecord, checked, crc_matches

_LOCAL_HEADER = struct.Struct("<4s22xHH")
# What zipfile raises over content that is not what it was.
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, struct.error)


def load_archive(path: Path, device: str | torch.device = "cpu", *, mmap: bool = False) -> Any:
    """What `torch.load` makes of an archive, tensors and plain values alone; see `checked_archive`."""
    with checked_archive(path):
        return torch.load(path, map_location=device, weights_only=True, mmap=mmap)


@contextmanager
def checked_archive(path: Path) -> Iterator[None]:
    """Check an archive while a block reads it.

    Files in torch's older format, and those written without checksums, have nothing to be checked.

    Raises:
        Damaged: a record is not what was written, which is named, or the archive's own tables are not.
    """
    with checked(path, archive_records(path)):
        yield


def archive_records(path: Path) -> list[FileRecord]:
    """The records of an archive with their checksums; none for a file without.

    Raises:
        Damaged: the archive's tables contradict each other, or its end is missing.
    """
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            return []
        try:
            with zipfile.ZipFile(file) as archive:
                entries = archive.infolist()
                # What torch.serialization.set_crc32_options(False) leaves.
                if not any(entry.CRC for entry in entries):
                    return []
                return [_record(path, archive, file, entry) for entry in entries]
        except _BROKEN as error:
            raise Damaged(path, f"the table of its records cannot be read ({error})") from error


def _record(path: Path, archive: zipfile.ZipFile, file: BinaryIO, entry: zipfile.ZipInfo) -> FileRecord:
    with archive.open(entry):  # compares the two places where its name stands
        pass
    # A tensor's bytes say nothing about how others are to be read.
    urgent = "/data/" not in entry.filename
    if entry.compress_type != zipfile.ZIP_STORED:
        return FileRecord(entry.filename, entry.file_size, partial(_unpacks, path, entry.filename), urgent)
    if entry.compress_size != entry.file_size:
        raise zipfile.BadZipFile(f"{entry.filename} has two sizes")
    file.seek(entry.header_offset)
    _, name, extra = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    start = entry.header_offset + _LOCAL_HEADER.size + name + extra
    whole = partial(crc_matches, path, start, entry.file_size, entry.CRC)
    return FileRecord(entry.filename, entry.file_size, whole, urgent)


def _unpacks(path: Path, name: str) -> bool:
    """Whether a compressed record, of an archive that something else has written, has its checksum."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open(name) as record:
            while record.read(1 << 20):
                pass
    except _BROKEN:
        return False
    return True
