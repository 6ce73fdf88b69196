"""The bytes of a tar archive in order, of a file, an address or a command, unpacked where they are compressed."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
from collections.abc import Callable
from typing import Any

from harness.data.regular_files import MAX_BYTES

# Told by content: the name says nothing. Each unpacks several streams one after another and compares their checksums.
_UNPACKERS: dict[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b\x08": lambda stream: gzip.GzipFile(fileobj=stream),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\0": lzma.LZMAFile,
    b"\x5d\0\0": lzma.LZMAFile,
}
_REPACK = "unpack it into a folder, and pack that with tar --sort=name"
_OTHERS = {
    b"\x28\xb5\x2f\xfd": ("compressed by Zstandard", "unpack it, as with zstd -d"),
    b"\x04\x22\x4d\x18": ("compressed by LZ4", "unpack it, as with lz4 -d"),
    b"\x1f\x9d": ("compressed by compress", "unpack it, as with gzip -d"),
    b"PK\x03\x04": ("a ZIP archive", _REPACK),
    b"7z\xbc\xaf\x27\x1c": ("a 7-Zip archive", _REPACK),
    b"Rar!\x1a\x07": ("a RAR archive", _REPACK),
}
_PIECE = 2**20


class BrokenArchive(tarfile.ReadError):
    """What is wrong with an archive, in words."""


class NotAnArchive(BrokenArchive):
    """It does not begin as an archive does."""


class Archive:
    """A stream as tarfile reads one, which is never asked for more than there may be.

    Args:
        stream: has `read`.
        size: its length, None where it is not known; a stream of known length is also sought in.
    """

    def __init__(self, stream: Any, size: int | None) -> None:
        self._stream, self.size = stream, size
        self._position = 0

    def tell(self) -> int:
        """Return the number of bytes before the place that is read next."""
        return self._position

    def read(self, count: int) -> bytes:
        """Return as many bytes, fewer at the end."""
        if count > MAX_BYTES:
            raise BrokenArchive(f"ReadError: damaged header at byte {self._position}, it claims {count:,} bytes")
        content: bytes = self._stream.read(count)
        self._position += len(content)
        return content

    def seek(self, position: int) -> int:
        """Go forward, at most to the end, and return the place that was reached."""
        if self.size is not None:
            self._position = self._stream.seek(min(position, self.size))
        while self._position < position and self.read(min(position - self._position, _PIECE)):
            pass
        return self._position

    def check_end(self, begin: int) -> None:
        """Read the rest, which follows the first block of zeros.

        Args:
            begin: where that block is.

        Raises:
            BrokenArchive: there is more than zeros, or more of them than any program writes.
        """
        while piece := self.read(_PIECE):
            if rest := piece.lstrip(b"\0"):
                raise BrokenArchive(_goes_on(begin, self._position - len(rest), rest))
        # Programs fill up the last record, which tar's -b makes 1 MiB at most in practice.
        if self._position - begin > _PIECE + tarfile.BLOCKSIZE:
            raise BrokenArchive(
                f"ReadError: nothing but zeros from byte {begin} to the end of the file at {self._position}, far more "
                "than end an archive, as in an unfinished download"
            )


class _Rejoined:
    """A stream whose beginning was read already."""

    def __init__(self, head: bytes, stream: Any) -> None:
        self._head, self._stream = head, stream

    def read(self, count: int) -> bytes:
        head, self._head = self._head[:count], self._head[count:]
        return head if len(head) == count else head + self._stream.read(count - len(head))


class _Unpacked:
    """What an unpacker gives; what it has unpacked before a fault is not lost to it."""

    def __init__(self, unpacker: Any) -> None:
        self._unpacker = unpacker

    def read(self, count: int) -> bytes:
        pieces = [self._unpacker.read1(count)]
        missing = count - len(pieces[0])
        while missing and pieces[-1]:
            pieces.append(self._unpacker.read1(missing))
            missing -= len(pieces[-1])
        return b"".join(pieces)


def open_archive(stream: Any) -> Archive:
    """Return the bytes of an archive, unpacked, at its beginning.

    Raises:
        NotAnArchive: it begins otherwise.
    """
    size = os.fstat(stream.fileno()).st_size if isinstance(stream, io.BufferedReader) and stream.seekable() else None
    head = stream.read(tarfile.BLOCKSIZE)
    if is_header(head):
        if size is None:
            return Archive(_Rejoined(head, stream), None)
        stream.seek(0)
        return Archive(stream, size)
    unpack = next((unpack for magic, unpack in _UNPACKERS.items() if head.startswith(magic)), None)
    if unpack is None:
        raise NotAnArchive(f"ReadError: the file is {_instead(head)}")
    unpacked = _Unpacked(unpack(_Rejoined(head, stream)))
    head = unpacked.read(tarfile.BLOCKSIZE)
    if not is_header(head):
        raise NotAnArchive(f"ReadError: what it unpacks to is {_instead(head)}")
    return Archive(_Rejoined(head, unpacked), None)


def is_header(block: bytes) -> bool:
    """Whether an archive can begin with this block: a member's header, or the end of an empty archive."""
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # its stub lacks them
        return True
    except (tarfile.HeaderError, ValueError, IndexError):
        return False
    return True


def _instead(head: bytes) -> str:
    """Return what begins in place of a tar archive."""
    for magic, (words, remedy) in _OTHERS.items():
        if head.startswith(magic):
            return f"{words}, and only tar archives are read, plain or packed by gzip, bzip2 or xz; {remedy}"
    if not head:
        return "empty, it has zero bytes"
    return f"no tar archive, or its first header is damaged; it begins with {head.partition(bytes(1))[0][:40]!r}"


def _goes_on(end: int, at: int, rest: bytes) -> str:
    at -= at % tarfile.BLOCKSIZE  # a block may begin with zeros
    what = ""
    if is_header(rest[: tarfile.BLOCKSIZE]):
        what = " with more members: several archives in one file, or a hole in this one"
    return f"ReadError: zeros at byte {end} end the archive, but after them the file goes on at byte {at}{what}"
