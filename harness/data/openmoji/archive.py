"""Tar shards with the same bytes on every machine."""

import io
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

Sample = tuple[str, Mapping[str, bytes]]  # key, and the member's contents by file ending


def write_shard(path: Path, samples: Iterable[Sample]) -> None:
    """Write samples into one uncompressed tar, in the order given, with time, owner and mode fixed."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as shard:
        for key, members in samples:
            for ending, content in members.items():
                info = tarfile.TarInfo(f"{key}.{ending}")
                info.size = len(content)
                shard.addfile(info, io.BytesIO(content))


def write_shards(folder: Path, samples: list[Sample], *, name: str, per_shard: int) -> int:
    """Write samples into shards of at most `per_shard`, named by formatting `name` with 0, 1, ...; return how many."""
    folder.mkdir(parents=True)
    starts = range(0, len(samples), per_shard)
    for number, start in enumerate(starts):
        write_shard(folder / name.format(number), samples[start : start + per_shard])
    return len(starts)
