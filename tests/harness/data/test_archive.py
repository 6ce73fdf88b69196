"""The bytes of archives: told by content, unpacked, read to their end."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os

import pytest

from harness.data.archive import Archive, BrokenArchive, open_archive
from tests.harness.data.damaged_tars import break_of, pairs, read, tar

PACKED = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "lzma": lambda content: lzma.compress(content, format=lzma.FORMAT_ALONE),
    "two gzip streams": lambda content: gzip.compress(content[:3000]) + gzip.compress(content[3000:]),
}


@pytest.mark.parametrize("name", ["0.tar", "0.tar.gz", "0.bin"])
@pytest.mark.parametrize("pack", PACKED.values(), ids=PACKED)
def test_packed_archives_are_known_by_their_content(tmp_path, pack, name):
    samples, said = read(tmp_path, pack(pairs(0, 5)), name)
    assert [sample.caption for sample in samples] == [f"number {number}".encode() for number in range(5)]
    assert said == []


def test_an_archive_whose_first_name_looks_packed(tmp_path):
    samples, said = read(tmp_path, tar([("BZh.png", b"x"), ("BZh.txt", b"y")]))
    assert [sample.key for sample in samples] == ["BZh"] and said == []


def test_a_packed_archive_that_is_cut(tmp_path):
    content = tar([(f"{n}.{ending}", os.urandom(5000)) for n in range(9) for ending in ("png", "txt")])
    packed = gzip.compress(content)
    count, reason = break_of(tmp_path, packed[: len(packed) // 2])
    assert count == 4 and reason.startswith("EOFError: ") and reason.endswith("; 4 samples were read before it")


def test_a_packed_archive_whose_checksum_differs(tmp_path):
    packed = bytearray(gzip.compress(pairs(0, 3)))
    packed[-6] ^= 1
    assert break_of(tmp_path, bytes(packed))[1].startswith("BadGzipFile: CRC check failed")


@pytest.mark.parametrize("join", [lambda one, two: one + two, lambda one, two: gzip.compress(one) + gzip.compress(two)])
def test_archives_one_after_another_are_told(tmp_path, join):
    count, reason = break_of(tmp_path, join(pairs(0, 5), pairs(5, 9)))
    assert count == 5 and "zeros at byte 10240 end the archive" in reason
    assert "goes on at byte 20480 with more members" in reason and "5 samples were read before it" in reason


def test_zeros_in_the_middle(tmp_path):
    content = bytearray(pairs(0, 5))
    content[4096:4620] = bytes(524)
    count, reason = break_of(tmp_path, bytes(content))
    assert count == 2 and "zeros at byte 4096 end the archive, but after them the file goes on at byte 4608;" in reason


def test_zeros_that_no_program_writes(tmp_path):
    assert read(tmp_path, pairs(0, 5) + bytes(2**20 - 10240))[1] == [], "a record of tar -b 2048"
    assert "nothing but zeros from byte 10240 to the end" in break_of(tmp_path, pairs(0, 5) + bytes(2**21))[1]


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "empty, it has zero bytes"), (b"<html>not found</html>", "it begins with b'<html>not found</html>'"),
     (b"PK\x03\x04" + bytes(99), "bzip2 or xz; unpack it into a folder, and pack that with tar"),
     (b"\x28\xb5\x2f\xfd\0", "compressed by Zstandard, and only tar archives are read"),
     (b"\x28\xb5\x2f\xfd\0", "; unpack it, as with zstd -d"),
     (b"PK\x03\x04" + bytes(99), "a ZIP archive, and only tar"),
     (gzip.compress(b"a table", mtime=0), "what it unpacks to is no tar archive"), (bytes(100), "no tar archive")],
)  # fmt: skip
def test_what_is_no_archive(tmp_path, content, words):
    assert words in break_of(tmp_path, content)[1]


def test_no_more_is_asked_for_than_anything_holds():
    archive = open_archive(io.BytesIO(pairs(0, 1)))
    with pytest.raises(BrokenArchive, match="claims 4,611,686,018,427,387,904 bytes"):
        archive.read(2**62)
    assert Archive(io.BytesIO(b"abc"), None).seek(2**62) == 3
