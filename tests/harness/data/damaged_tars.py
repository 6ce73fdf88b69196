"""Tar archives with one fault each."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

from harness.data.samples import RawSample, SkippedSample
from harness.data.shards import ShardSource
from tests.harness.data.pairs import pair

HUGE = b"\x80" + (1 << 62).to_bytes(11, "big")  # a size field
SYMLINK = b"2"


def tar(
    members: Iterable[tuple[str, bytes]], *, kind: bytes = tarfile.REGTYPE, layout: int = tarfile.GNU_FORMAT
) -> bytes:
    """Return an archive of these members; surrogates in names become single bytes again."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=layout, encoding="utf-8", errors="surrogateescape") as archive:
        for name, member in members:
            info = tarfile.TarInfo(name)
            info.type, info.size = kind, len(member) if kind == tarfile.REGTYPE else 0
            archive.addfile(info, io.BytesIO(member))
    return content.getvalue()


def pairs(start: int, stop: int) -> bytes:
    """Return an archive of pairs, each of two members of two blocks."""
    numbers = range(start, stop)
    return tar((f"{key}.{ending}", content) for key, files in map(pair, numbers) for ending, content in files.items())


def with_size(content: bytes, header: int, size: bytes) -> bytes:
    """Put a size into the header at this place, and the checksum that belongs to it."""
    harmed = bytearray(content)
    harmed[header + 124 : header + 136] = size
    harmed[header + 148 : header + 156] = b" " * 8
    harmed[header + 148 : header + 156] = b"%06o\0 " % sum(harmed[header : header + 512])
    return bytes(harmed)


def read(folder: Path, content: bytes, name: str = "0.tar") -> tuple[list[RawSample], list[SkippedSample]]:
    """Return the samples of a shard, and what is said of it."""
    (folder / name).write_bytes(content)
    said: list[SkippedSample] = []
    return list(ShardSource([folder / name]).read([0], said.append)), said


def break_of(folder: Path, content: bytes) -> tuple[int, str]:
    """Return how many samples are read before a break, and what is said of it; counting says the same of it."""
    samples, (broken, *_) = read(folder, content)
    assert broken.kind == "broken_shard" and "\n" not in broken.reason
    counted: list[SkippedSample] = []
    ShardSource([folder / "0.tar"]).count(10**9, counted.append)
    assert [one.reason.partition(";")[0] for one in counted] == [broken.reason.partition(";")[0]]
    return len(samples), broken.reason
