"""A bit flipped anywhere in a file of tensors is noticed, or changes nothing that is read."""

from __future__ import annotations

import random

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from harness.weights import checksums
from harness.weights.checksums import Damaged
from harness.weights.tensor_files import load_tensors, save_tensors, tensor_records
from tests.harness.weights.damage import flip

TENSORS = {
    "a": torch.arange(40.0).view(5, 8),
    "half": torch.ones(3, 2, dtype=torch.bfloat16),
    "number": torch.tensor(2, dtype=torch.int64),
    "none": torch.empty(0, 4),
    "flags": torch.tensor([True, False]),
}
METADATA = {"format": "pt", "facts": '{"ä": "\\"1\\""}'}


@pytest.fixture
def file(tmp_path):
    save_tensors(tmp_path / "t.safetensors", TENSORS, METADATA)
    return tmp_path / "t.safetensors"


def same(found) -> bool:
    return found.keys() == TENSORS.keys() and all(
        found[name].dtype == value.dtype and torch.equal(found[name], value) for name, value in TENSORS.items()
    )


def test_others_read_what_was_given(file):
    assert same(load_file(file))
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    assert {key: metadata[key] for key in METADATA} == METADATA
    assert same(load_tensors(file))
    assert [record.name for record in tensor_records(file)] == ["of the metadata", *TENSORS]


def test_the_same_content_is_the_same_file(file, tmp_path):
    for number in range(8):
        save_tensors(tmp_path / f"{number}", TENSORS, METADATA)
        assert (tmp_path / f"{number}").read_bytes() == file.read_bytes()


def test_files_of_others_are_read(tmp_path):
    save_file(TENSORS, tmp_path / "t", metadata={"format": "pt"})
    assert same(load_tensors(tmp_path / "t"))
    save_file(TENSORS, tmp_path / "t")
    assert same(load_tensors(tmp_path / "t"))


@pytest.mark.parametrize("small", [0, checksums._SMALL])
def test_a_flipped_bit_is_named_by_its_tensor(file, monkeypatch, small):
    monkeypatch.setattr(checksums, "_SMALL", small)
    at = file.read_bytes().index(TENSORS["a"].numpy().tobytes()) + 83
    flip(file, at)
    load_file(file)  # says nothing
    with pytest.raises(Damaged, match=r"t\.safetensors is damaged: its record a does not match its checksum; "):
        load_tensors(file)


def test_wherever_a_bit_is_flipped_other_values_are_never_read(file):
    whole, draw = file.read_bytes(), random.Random(0)
    refused = 0
    for at in range(0, len(whole), 3):
        file.write_bytes(whole)
        flip(file, at, draw.randrange(8))
        try:
            found = load_tensors(file)
        except Exception:  # a header that is none is safetensors' to refuse, in its own words
            refused += 1
        else:
            assert same(found), at
    assert refused > 0.8 * len(whole) / 3


def test_a_shortened_file_is_refused(file):
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(Damaged, match="does not match its checksum"):
        load_tensors(file)


@pytest.mark.parametrize(("old", "new"), [(b"facts", b"fakts"), (b'"half":{', b'"calf":{'), (b'"I64"', b'"U64"')])
def test_names_types_and_the_other_metadata_are_covered(file, old, new):
    content = file.read_bytes()
    assert content.count(old) == 1
    file.write_bytes(content.replace(old, new))
    with pytest.raises(Damaged):
        load_tensors(file)
