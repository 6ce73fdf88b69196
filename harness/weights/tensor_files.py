"""Safetensors files with a checksum of each tensor in their metadata; others, which have none, are read too."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from harness.weights.checksums import Damaged, FileRecord, checked, crc32, crc_matches
from kdlosses.integrations.verify import METADATA, REST, SUMS, header_sum


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write contiguous CPU tensors with their checksums; the same content is always the same file.

    Args:
        path: the file.
        tensors: by name.
        metadata: what else the header is to hold.
    """
    sums = {name: "0" * 8 for name in (REST, *tensors)}
    # safetensors writes several entries in any order: it gets one, which is as long as what then takes its place.
    entry = {"x": "x" * (len(_compact(_with(metadata, sums))) - len('{"x":""}'))}
    try:
        save_file(dict(tensors), path, metadata=entry)
    except SafetensorError as error:
        raise _of_the_system(error) from error
    with path.open("r+b") as file:
        size, header = _read_header(file)
        for name, tensor in tensors.items():
            sums[name] = f"{_crc(tensor, header_sum(name, header[name])):08x}"
        sums[REST] = f"{header_sum(REST, dict(metadata)):08x}"
        file.seek(8)
        content = file.read(size).replace(_compact(entry), _compact(_with(metadata, sums)), 1)
        assert len(content) == size and SUMS.encode() in content, "safetensors wrote its metadata in another form"
        file.seek(8)
        file.write(content)


def _of_the_system(error: SafetensorError) -> Exception:
    """The OSError that safetensors has put into words, as of a full disk; the error itself if there is none."""
    number = re.search(r"Os \{ code: (\d+)|\(os error (\d+)\)", str(error))
    if number is None:
        return error
    code = int(number[1] or number[2])
    return OSError(code, os.strerror(code))


def load_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a file; see `checked_tensors`."""
    with checked_tensors(path):
        return load_file(path)


@contextmanager
def checked_tensors(path: Path) -> Iterator[None]:
    """Check a file while a block reads it.

    Raises:
        Damaged: naming a tensor that is not what was written, or the header.
    """
    with checked(path, tensor_records(path)):
        yield


def tensor_records(path: Path) -> list[FileRecord]:
    """The tensors of a file with their checksums; none for a file without. Broken headers are safetensors' to refuse.

    Raises:
        Damaged: its header and its list of checksums contradict each other.
    """
    with path.open("rb") as file:
        try:
            size, header = _read_header(file)
            metadata = dict(header.pop(METADATA))
            text = metadata.pop(SUMS)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return []
    try:
        sums = {name: int(crc, 16) for name, crc in json.loads(text).items()}
        rest = sums.pop(REST)
        if sums.keys() != header.keys():
            raise ValueError("which names other tensors")
        whole = header_sum(REST, metadata) == rest
        found = [FileRecord("of the metadata", size, lambda: whole, urgent=True)]
        return found + [_record(path, name, header[name], 8 + size, crc) for name, crc in sums.items()]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Damaged(path, f"its header does not fit its list of checksums ({error})") from error


def _record(path: Path, name: str, entry: dict[str, Any], start: int, crc: int) -> FileRecord:
    begin, end = entry["data_offsets"]
    return FileRecord(
        name, end - begin, partial(crc_matches, path, start + begin, end - begin, crc, header_sum(name, entry))
    )


def _read_header(file: BinaryIO) -> tuple[int, dict[str, Any]]:
    """Length and content of a header, which must fit into the file."""
    size = int.from_bytes(file.read(8), "little")
    text = file.read(size) if size <= Path(file.name).stat().st_size else b""
    return size, json.loads(text)


def _crc(tensor: Tensor, seed: int) -> int:
    return crc32(tensor.detach().reshape(-1).view(torch.uint8).numpy(), seed)


def _with(metadata: Mapping[str, str], sums: Mapping[str, str]) -> dict[str, str]:
    return {**metadata, SUMS: _compact(sums).decode()}


def _compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
