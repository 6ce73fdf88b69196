"""Headers of safetensors files that hold anything give words, never a traceback."""

from __future__ import annotations

import json

import pytest

from kdlosses.integrations.verify import damage_in

ENTRY = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.mark.parametrize("sums", ["[" * 100_000, '{"a":' * 100_000, "{", "[]", '{"a": 3}', '{"": "00000000"}'])
def test_checksums_that_are_none(tmp_path, sums):
    header = json.dumps({"__metadata__": {"crc32": sums}, "weight": ENTRY}).encode()
    path = tmp_path / "weights.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    assert damage_in(path) == "its header does not fit its list of checksums"


def test_a_header_nested_without_end_is_the_readers_to_refuse(tmp_path):
    header = b'{"a":' + b"[" * 100_000
    path = tmp_path / "weights.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    assert damage_in(path) is None
