"""A bit flipped anywhere in a `torch.save`d file is noticed, or changes nothing that is read."""

from __future__ import annotations

import random
import zipfile

import pytest
import torch

from harness.weights import checksums
from harness.weights.archives import load_archive
from harness.weights.checksums import Damaged
from tests.harness.weights.damage import flip, flip_largest_record

STATE = {"step": 3, "state_dict": {"a": torch.arange(40.0).view(5, 8), "b": torch.ones(3)}, "text": "ä"}


def saved(path, content=STATE, **options):
    torch.save(content, path, **options)
    return path


def equal(one, other):
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return isinstance(other, dict) and list(one) == list(other) and all(equal(one[k], other[k]) for k in one)
    return one == other


@pytest.fixture(params=["at once", "in threads"])
def threads(request, monkeypatch):
    """Small files are checked before they are read, large ones meanwhile."""
    if request.param == "in threads":
        monkeypatch.setattr(checksums, "_SMALL", 0)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("mmap", [False, True])
def test_what_is_whole_is_what_torch_reads(tmp_path, mmap):
    assert equal(load_archive(saved(tmp_path / "c.pt"), mmap=mmap), STATE)


@pytest.mark.usefixtures("threads")
def test_a_flipped_bit_is_named_by_its_record(tmp_path):
    name = flip_largest_record(saved(tmp_path / "c.pt", {"w": torch.randn(64, 64)}))
    torch.load(tmp_path / "c.pt", weights_only=True)  # says nothing
    with pytest.raises(Damaged, match=rf"c\.pt is damaged: its record {name} does not match its checksum; "):
        load_archive(tmp_path / "c.pt")


@pytest.mark.usefixtures("threads")
def test_wherever_a_bit_is_flipped_other_values_are_never_read(tmp_path):
    path = saved(tmp_path / "c.pt")
    whole, draw = path.read_bytes(), random.Random(0)
    refused = 0
    for at in range(0, len(whole), 9):
        path.write_bytes(whole)
        flip(path, min(at + draw.randrange(9), len(whole) - 1), draw.randrange(8))
        try:
            found = load_archive(path)
        except Exception:  # the magic number is torch's to read, which fails in its own ways
            refused += 1
        else:
            assert equal(found, STATE), at
    assert refused > 40


@pytest.mark.parametrize("options", [{"_use_new_zipfile_serialization": False}, {}])
def test_files_without_checksums_are_read(tmp_path, options):
    was = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        path = saved(tmp_path / "c.pt", **options)
    finally:
        torch.serialization.set_crc32_options(was)
    assert equal(load_archive(path), STATE)


@pytest.mark.parametrize("damaged", [False, True])
def test_archives_that_were_packed_anew_are_checked_too(tmp_path, damaged):
    with zipfile.ZipFile(saved(tmp_path / "c.pt")) as archive, zipfile.ZipFile(tmp_path / "d.pt", "w", 8) as packed:
        for info in archive.infolist():
            packed.writestr(info.filename, archive.read(info))
    if not damaged:
        assert equal(load_archive(tmp_path / "d.pt"), STATE)
        return
    flip_largest_record(tmp_path / "d.pt")
    with pytest.raises(Damaged, match="does not match its checksum"):
        load_archive(tmp_path / "d.pt")


def test_a_missing_end_is_said(tmp_path):
    path = saved(tmp_path / "c.pt")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(Damaged, match=r"is damaged: the table of its records cannot be read \(File is not a zip file"):
        load_archive(path)
