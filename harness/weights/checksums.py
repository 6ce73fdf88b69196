"""Checksums of files of weights, computed while the file is read: what is damaged is named, and not used."""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.container import usable_cores
from harness.errors import UserError

_CHUNK = 4 << 20
# Below this threads cost more than they save.
_SMALL = 4 << 20
_THREADS = max(1, min(4, round(usable_cores())))

Crc32 = Callable[[Any, int], int]


def _fastest() -> Crc32:
    """The zip format's CRC-32, from ISA-L where it is installed: 2.5 times as fast as zlib's."""
    try:
        found: Crc32 = importlib.import_module("isal.isal_zlib").crc32
    except ImportError:
        return zlib.crc32
    return found


crc32 = _fastest()


class Damaged(UserError):
    """A file is not what was written.

    Args:
        path: the file.
        reason: what is wrong with it, in words that follow its name.
    """

    def __init__(self, path: Path, reason: str, way_on: str = "copy or download it again, or restore a backup") -> None:
        super().__init__(f"{path} is damaged: {reason}; {way_on}")
        self.path, self.reason = path, reason

    def __reduce__(self) -> tuple[type[UserError], tuple[str]]:
        return UserError, (str(self),)  # in another process


@dataclass(frozen=True)
class FileRecord:
    """A named stretch of a file.

    Args:
        name: of the record.
        size: in bytes.
        is_whole: whether it is what was written; called from any thread.
        urgent: it says how the others are to be read, so it is checked before them.
    """

    name: str
    size: int
    is_whole: Callable[[], bool]
    urgent: bool = False


def crc_matches(path: Path, start: int, size: int, crc: int, before: int = 0) -> bool:
    """Whether ``size`` bytes from ``start`` have the checksum, which began with the value ``before``."""
    buffer = memoryview(bytearray(min(_CHUNK, max(size, 1))))
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        while size > 0:
            count = file.readinto(buffer[: min(size, len(buffer))])
            if not count:
                return False  # the file ends here
            before, size = crc32(buffer[:count], before), size - count
    return before == crc


def check(path: Path, records: Sequence[FileRecord]) -> None:
    """Check all records.

    Raises:
        Damaged: naming the first that is not whole.
    """
    with checked(path, records):
        pass


@contextmanager
def checked(path: Path, records: Sequence[FileRecord]) -> Iterator[None]:
    """Check records while a block reads the file; what the block made must not be used before its end.

    Raises:
        Damaged: naming the first record that is not whole, also where the block failed over it.
    """
    small = sum(record.size for record in records) < _SMALL
    at_once, rest = ([r for r in records if (small or r.urgent) == first] for first in (True, False))
    _refuse_damaged(path, at_once, [record.is_whole() for record in at_once])
    pool = ThreadPoolExecutor(_THREADS)  # which starts a thread when it is given work
    try:
        answers = pool.map(lambda record: record.is_whole(), rest)
        try:
            yield
        except Exception as error:
            _refuse_damaged(path, rest, answers, error)
            raise
        _refuse_damaged(path, rest, answers)
    finally:
        pool.shutdown(cancel_futures=True)


def _refuse_damaged(
    path: Path, records: Sequence[FileRecord], whole: Iterable[bool], cause: Exception | None = None
) -> None:
    for record, is_whole in zip(records, whole, strict=True):
        if not is_whole:
            raise Damaged(path, f"its record {record.name} does not match its checksum") from cause
