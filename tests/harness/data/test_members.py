"""Headers chain from an archive's beginning to its end, or the archive is broken."""

from __future__ import annotations

import gzip
import os
import tarfile

import pytest

from harness.data.shards import ShardSource
from tests.harness.data.damaged_tars import HUGE, break_of, pairs, read, tar, with_size

HEADER = 5120  # of the third caption
WHOLE = pairs(0, 5)


def test_a_damaged_header(tmp_path):
    harmed = bytearray(WHOLE)
    harmed[HEADER + 3] ^= 0xFF
    count, reason = break_of(tmp_path, bytes(harmed))
    assert count == 2
    assert reason == "ReadError: damaged header at byte 5120 (bad checksum); 2 samples were read before it"


@pytest.mark.parametrize("pack", [lambda content: content, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize("header", [0, 2048, HEADER])
@pytest.mark.parametrize("size", [HUGE, b"77777777777\0", b"00000100000\0"], ids=["2^62", "8 GiB", "32 KiB"])
def test_a_size_beyond_the_file(tmp_path, size, header, pack):
    count, reason = break_of(tmp_path, pack(with_size(WHOLE, header, size)))
    assert count == header // 2048 and f"which begins at byte {header} and claims " in reason
    assert "more than the file has" in reason


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.DIRTYPE, b"Z", tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_a_size_beyond_the_file_of_what_is_no_file(tmp_path, kind):
    """Links and folders have no content, whatever they claim."""
    first = bytearray(tar([("x", b"")], kind=kind)[:512])
    found, said = read(tmp_path, with_size(bytes(first) + WHOLE, 0, HUGE))
    expected = (5, "unread_member") if kind == tarfile.SYMTYPE else (5, None) if kind == tarfile.DIRTYPE else None
    assert (len(found), said[0].kind if said else None) == (expected or (0, "broken_shard"))


@pytest.mark.parametrize("size", [b"\xff" * 12, b"-0000000002\0"], ids=["binary", "digits"])
def test_a_size_below_zero(tmp_path, size):
    assert "damaged header at byte 5120" in break_of(tmp_path, with_size(WHOLE, HEADER, size))[1]


@pytest.mark.parametrize(("length", "count"), [(10240, 5), (8192, 4), (9216, 5)])
def test_an_archive_without_its_end(tmp_path, length, count):
    """The last length is behind the fifth image, the pair of which lacks its caption."""
    found, reason = break_of(tmp_path, WHOLE[:length])
    assert found == (4 if length == 9216 else count)
    assert f"the file ends at byte {length} without the mark that ends an archive" in reason


def test_one_block_of_zeros_is_an_end(tmp_path):
    assert read(tmp_path, WHOLE[: 10240 + 512])[1] == []


@pytest.mark.parametrize("layout", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_names(tmp_path, layout):
    key = "é" * 120
    found, said = read(tmp_path, tar([(f"{key}.png", b"x"), (f"{key}.txt", b"y")], layout=layout))
    assert [(sample.key, sample.image, sample.caption) for sample in found] == [(key, b"x", b"y")] and said == []


def test_headers_that_lead_to_headers_without_end(tmp_path):
    block = with_size(tar([("x", b"")], kind=tarfile.GNUTYPE_LONGNAME)[:512], 0, b"%011o\0" % 1)
    found, (broken,) = read(tmp_path, (block + b"name".ljust(512, b"\0")) * 5000)
    assert found == [] and "damaged header" in broken.reason


def test_members_of_webdataset_and_folders_are_passed(tmp_path):
    content = tar([("__index__", b"x"), ("__meta__/a.json", b"x"), ("a.png", b"x"), ("a.txt", b"y")])
    found, said = read(tmp_path, tar([("folder", b"")], kind=tarfile.DIRTYPE)[:512] + content)
    assert [sample.key for sample in found] == ["a"] and said == []


def test_a_sparse_member(tmp_path):
    """0.png holds 4 bytes behind a hole of 1020, as GNU tar's --sparse stores it."""
    header = bytearray(tar([("0.png", b"\0" * 4)])[:512])
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[386:410] = b"%011o\0%011o\0" % (1020, 4)
    header[483:495] = b"%011o\0" % 1024
    content = with_size(bytes(header), 0, b"%011o\0" % 4) + b"abcd".ljust(512, b"\0") + tar([("0.txt", b"y")])
    (sample,), said = read(tmp_path, content)
    assert sample.image == bytes(1020) + b"abcd" and said == []


def test_a_pipe_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "0.tar")
    said = []
    assert list(ShardSource([tmp_path / "0.tar"]).read([0], said.append)) == []
    assert said[0].reason == "OSError: a named pipe, and only regular files are read"
