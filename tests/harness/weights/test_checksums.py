"""The checksum is zip's, whoever computes it."""

from __future__ import annotations

import sys
import zlib

import pytest

from harness.weights import checksums
from harness.weights.checksums import Damaged, FileRecord, checked, crc_matches


def test_both_ways_to_compute_it_agree(monkeypatch):
    data = bytes(range(256)) * 50
    assert checksums.crc32(data[100:], checksums.crc32(data[:100], 0)) == zlib.crc32(data)
    monkeypatch.setitem(sys.modules, "isal", None)
    monkeypatch.delitem(sys.modules, "isal.isal_zlib", raising=False)
    assert checksums._fastest() is zlib.crc32


@pytest.mark.parametrize("chunk", [7, 1 << 20])
def test_a_stretch_of_a_file_is_read_in_chunks(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(checksums, "_CHUNK", chunk)
    (tmp_path / "f").write_bytes(b"head" + b"content" * 10 + b"tail")
    crc = zlib.crc32(b"content" * 10, 5)
    assert crc_matches(tmp_path / "f", 4, 70, crc, 5)
    assert not crc_matches(tmp_path / "f", 4, 70, crc)
    assert not crc_matches(tmp_path / "f", 3, 70, crc, 5)
    assert not crc_matches(tmp_path / "f", 9, 70, crc, 5)  # beyond the end


@pytest.mark.parametrize("size", [1, 1 << 30])
def test_a_block_that_fails_over_damage_is_told_the_damage(tmp_path, size):
    def read(whole):
        with checked(tmp_path / "f", [FileRecord("a", size, lambda: True), FileRecord("b", size, lambda: whole)]):
            raise OSError("what damage leads to")

    with pytest.raises(OSError, match="what damage leads to"):
        read(True)
    with pytest.raises(Damaged, match="its record b does not match its checksum"):
        read(False)


def test_records_that_tell_how_to_read_others_are_checked_before_the_block(tmp_path):
    records = [FileRecord("data", 1 << 30, lambda: True), FileRecord("names", 5, lambda: False, urgent=True)]
    with pytest.raises(Damaged, match="record names"), checked(tmp_path / "f", records):
        pytest.fail("the block ran")
