"""The members of a tar archive, whose headers must chain from its beginning to its end."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

from harness.data.archive import Archive, BrokenArchive
from harness.data.regular_files import MAX_BYTES

_META = re.compile(r"__[^/]*__($|/)")  # webdataset's own
# What tarfile raises over a header's content; of the stream come OSError, EOFError, zlib.error and such.
_DAMAGED = (tarfile.HeaderError, ValueError, IndexError, OverflowError, RecursionError)


@dataclass(frozen=True)
class Member:
    """A file of an archive.

    Attributes:
        name: with surrogates for bytes that are not UTF-8.
        offset: of its header.
        content: None if it is not read.
        unread: why it is not.
    """

    name: str
    offset: int
    content: bytes | None
    unread: str = ""


class _Header(tarfile.TarInfo):
    """A header, of which any fault is an error: tarfile takes most of them for the archive's end."""

    @classmethod
    def fromtarfile(cls, archive: Any) -> _Header:
        begin = archive.fileobj.tell()
        header = _parse(super().fromtarfile, archive, begin)
        if header.size < 0 or archive.offset < archive.fileobj.tell():
            raise BrokenArchive(f"ReadError: damaged header at byte {begin} (it claims {header.size:,} bytes)")
        return cast(_Header, header)


def _parse(parse: Callable[[Any], tarfile.TarInfo], archive: Any, begin: int) -> tarfile.TarInfo:
    try:
        return parse(archive)
    except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # its stub lacks them
        raise
    except tarfile.EmptyHeaderError:  # type: ignore[attr-defined]
        words = f"the file ends at byte {begin} without the mark that ends an archive, as after an unfinished download"
        raise BrokenArchive(f"ReadError: {words}") from None
    except tarfile.TruncatedHeaderError:  # type: ignore[attr-defined]
        words = f"the file ends inside a block, as after an unfinished download: inside the header at byte {begin}"
        raise BrokenArchive(words) from None
    except _DAMAGED as error:
        raise BrokenArchive(f"ReadError: damaged header at byte {begin} ({error})") from None


def read_members(archive: Archive, *, contents: bool = True) -> Iterator[Member]:
    """Yield the files of an archive; folders and webdataset's own members are left out.

    Args:
        archive: at its beginning.
        contents: whether they are read, rather than gone past.

    Raises:
        BrokenArchive: its headers do not chain to its end.
    """
    tar = tarfile.TarFile(fileobj=cast(Any, archive), tarinfo=_Header, encoding="utf-8")
    while tar.offset and (header := tar.next()) is not None:  # at 0 there is none, after which 3.10 would seek to -1
        tar.members.clear()  # type: ignore[attr-defined]  # or it would hold all of them
        after: int = tar.offset
        end = after if header.issparse() else min(after, header.offset_data + header.size)
        if contents and archive.size is not None and end > archive.size:
            raise _cut(header, archive.size)
        if not header.isdir() and not _META.match(header.name):
            yield Member(header.name, header.offset, *_content(tar, archive, header, contents))
        if archive.seek(after) < after:
            raise _cut(header, archive.tell())
    archive.check_end(archive.tell() - tarfile.BLOCKSIZE)


def _content(
    tar: tarfile.TarFile, archive: Archive, header: tarfile.TarInfo, contents: bool
) -> tuple[bytes | None, str]:
    """Return a member's content, and why it has none."""
    if not header.isreg():
        return None, "it is a link" if header.issym() or header.islnk() else "it is no file"
    if header.size > MAX_BYTES:
        return None, f"it has {header.size:,} bytes, above {MAX_BYTES:,}"
    if not contents:
        return b"", ""
    if header.issparse():
        file = tar.extractfile(header)
        assert file is not None, "of a file"
        return file.read(), ""
    content = archive.read(header.size)
    if len(content) < header.size:
        raise _cut(header, archive.tell())
    return content, ""


def _cut(header: tarfile.TarInfo, end: int) -> BrokenArchive:
    name = printable(header.name)
    return BrokenArchive(
        f"ReadError: unexpected end of data at byte {end} inside {name}, which begins at byte {header.offset} and "
        f"claims {header.size:,} bytes, more than the file has"
    )


def printable(name: str) -> str:
    """Return a name with what is not UTF-8 escaped."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")
