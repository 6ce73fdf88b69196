"""Whether a file of weights is what was written, and whether its numbers are finite; needs torch alone."""

from __future__ import annotations

import json
import mmap
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Content = bytes | mmap.mmap
_ZIP = b"PK\x03\x04"
# Where a header has its metadata, and they the checksums.
METADATA, SUMS = "__metadata__", "crc32"
# Among a safetensors file's checksums, that of the rest of its metadata.
REST = ""
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError)


def damage_in(path: str | Path) -> str | None:
    """What is wrong with a file of weights, in words that follow its name; None where nothing is.

    The archives of ``torch.save`` have a checksum for each record, which ``torch.load`` passes over; safetensors files
    that clipkd or `save_loss` wrote have one for each tensor. Other files have nothing to be checked.

    Args:
        path: an existing file.

    Example:
        >>> import tempfile
        >>> import torch
        >>> from kdlosses.integrations.verify import damage_in
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     torch.save({"weight": torch.eye(2)}, file.name)
        ...     damage_in(file.name) is None
        True
    """
    with Path(path).open("rb") as file:
        head = file.read(9)
        if head.startswith(_ZIP):
            return _damage_in_archive(Path(path))
        if head[8:] != b"{":  # where safetensors' header begins
            return None
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _damage_in_tensors(content)


def without_numbers(tensors: Iterable[tuple[str, Any]]) -> list[str]:
    """The names of the tensors that hold NaN or infinity.

    Args:
        tensors: by name; other values than floating tensors are passed over.

    Example:
        >>> import torch
        >>> from kdlosses.integrations.verify import without_numbers
        >>> without_numbers({"bias": torch.zeros(2), "weight": torch.tensor(float("nan"))}.items())
        ['weight']
    """
    floating = [(name, one) for name, one in tensors if isinstance(one, Tensor) and one.is_floating_point()]
    return [name for name, one in floating if not bool(torch.isfinite(one).all())]


def not_finite(names: list[str]) -> str:
    """In words: that these tensors hold NaN or infinity.

    Example:
        >>> from kdlosses.integrations.verify import not_finite
        >>> not_finite(["weight"])
        'NaN or infinity in weight'
    """
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"NaN or infinity in {', '.join(names[:3])}{more}"


def with_checksums(content: bytes) -> bytes:
    """A safetensors file with the checksums of its tensors among its metadata.

    Args:
        content: of the file, without them.

    Example:
        >>> import torch
        >>> from safetensors.torch import load, save
        >>> from kdlosses.integrations.verify import with_checksums
        >>> content = with_checksums(save({"weight": torch.eye(2)}, {"format": "pt"}))
        >>> b"crc32" in content, load(content)
        (True, {'weight': tensor([[1., 0.],
                [0., 1.]])})
    """
    start, header = _header(content)
    metadata = header.pop(METADATA, {})
    sums = {name: f"{_sum_of(content, start, name, entry):08x}" for name, entry in header.items()}
    sums[REST] = f"{header_sum(REST, metadata):08x}"
    whole = {METADATA: {**metadata, SUMS: json.dumps(sums, separators=(",", ":"))}, **header}
    text = json.dumps(whole, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8
    return b"".join([len(text).to_bytes(8, "little"), text, memoryview(content)[start:]])


def header_sum(name: str, entry: Mapping[str, Any]) -> int:
    """Checksum of what the header says: a tensor's goes on from there, so its name, type and shape are covered too.

    Args:
        name: of the tensor, or `REST`.
        entry: the tensor's in the header; for `REST` the metadata without checksums.

    Example:
        >>> from kdlosses.integrations.verify import header_sum
        >>> f"{header_sum('weight', {'dtype': 'F32', 'shape': [2, 2], 'data_offsets': [0, 16]}):08x}"
        'eb65c5f6'
    """
    facts = {key: value for key, value in entry.items() if key != "data_offsets"}
    return zlib.crc32(json.dumps([name, facts], sort_keys=True).encode())


def _damage_in_archive(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            # What torch.serialization.set_crc32_options(False) leaves has none.
            damaged = archive.testzip() if any(entry.CRC for entry in archive.infolist()) else None
    except _BROKEN as error:
        return f"the table of its records cannot be read ({error})"
    return None if damaged is None else f"its record {damaged} does not match its checksum"


def _damage_in_tensors(content: Content) -> str | None:
    try:
        start, header = _header(content)
        metadata = dict(header.pop(METADATA))
        text = metadata.pop(SUMS)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None  # not safetensors, or without checksums; a broken header is the reader's to refuse
    try:
        sums = {name: int(value, 16) for name, value in json.loads(text).items()}
        whole = sums.pop(REST) == header_sum(REST, metadata) and sums.keys() == header.keys()
        damaged = [name for name, value in sums.items() if _sum_of(content, start, name, header[name]) != value]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return "its header does not fit its list of checksums"
    if damaged:
        return f"its tensor {damaged[0]} does not match its checksum"
    return None if whole else "its header does not fit its list of checksums"


def _header(content: Content) -> tuple[int, dict[str, Any]]:
    """Where the tensors begin, and what the header says."""
    size = int.from_bytes(content[:8], "little")
    return 8 + size, json.loads(content[8 : 8 + size])


def _sum_of(content: Content, start: int, name: str, entry: Mapping[str, Any]) -> int:
    begin, end = entry["data_offsets"]
    return zlib.crc32(memoryview(content)[start + begin : start + end], header_sum(name, entry))
