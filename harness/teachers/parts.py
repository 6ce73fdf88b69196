"""Data files cut into parts, each of which has a file of its own in the cache."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from glob import escape
from pathlib import Path

import numpy as np

from harness.config import DataConfig
from harness.data.samples import RawSample, SkippedSample
from harness.data.shards import ShardSource
from harness.data.sources import IndexedSource
from harness.errors import UserError
from harness.teachers.datafiles import DataFile
from harness.teachers.samples import sample_id
from harness.teachers.storage import check_part, read_header

# Samples in a part of a CSV file: what img2dataset puts into a shard.
PART_SIZE = 10_000


@dataclass(frozen=True, eq=False)
class Part:
    """A shard; or those samples of a CSV file whose id is `number` modulo `count`.

    Attributes:
        file: the data file.
        source: the data file, opened.
        number: of the part.
        count: of the file's parts.
        indices: which of its samples; None for a shard.
    """

    file: DataFile
    source: IndexedSource | ShardSource
    number: int = 0
    count: int = 1
    indices: np.ndarray | None = None

    def read(self, on_broken: Callable[[SkippedSample], None]) -> Iterator[RawSample]:
        """Yield the samples; a shard that breaks off is handed to `on_broken`."""
        if isinstance(self.source, ShardSource):
            return self.source.read([0], on_broken)
        assert self.indices is not None
        return (self.source[index] for index in self.indices.tolist())

    def path(self, folder: Path) -> Path:
        """Return its file in a cache's folder."""
        return _path(folder, self.file, self.number, self.count)

    def finished(self, path: Path, mark: str) -> bool:
        """Tell whether the file is there and fits the data and the cache, by the digest of its fingerprint."""
        if not path.is_file():
            return False
        try:
            header = read_header(path)
            check_part(path)
        except UserError:
            return False  # damaged: it is rebuilt
        return header.cache == mark and header.data == self.file.facts


def cut(file: DataFile, cfg: DataConfig, size: int = PART_SIZE) -> list[Part]:
    """Cut a data file into parts of about `size` samples; a shard is one part.

    The id decides on the part, so that a sample finds its entry without an index of all.
    """
    source = file.open(cfg)
    if isinstance(source, ShardSource):
        return [Part(file, source)]
    count = max(1, math.ceil(len(source) / size))
    numbers = np.zeros(len(source), np.int64)
    if count > 1:
        numbers[:] = [sample_id(source[index]) % count for index in range(len(source))]
    return [Part(file, source, number, count, np.flatnonzero(numbers == number)) for number in range(count)]


def find(file: DataFile, folder: Path) -> tuple[Path, ...]:
    """Return the cache files of a data file, in the order of their numbers.

    Raises:
        UserError: some are missing.
    """
    count = 1
    if not file.is_shard:
        count = max((int(path.name.rsplit("-of-", 1)[1].split(".")[0]) for path in _numbered(folder, file)), default=1)
    paths = tuple(_path(folder, file, number, count) for number in range(count))
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise UserError(
            f"the teacher cache in {folder} is not complete: {missing[0].name} is missing, which belongs to "
            f"{file.shard}; run `clipkd teacher precompute` with this recipe, it makes what is missing"
        )
    return paths


def drop_stale(folders: Mapping[Part, Path]) -> None:
    """Delete what an earlier state of a CSV file, cut into another number of parts, has left."""
    keep = {part.path(folder) for part, folder in folders.items()}
    for part, folder in folders.items():
        if part.number == 0 and not part.file.is_shard:
            for path in _numbered(folder, part.file):
                if path not in keep:
                    path.unlink()


def _numbered(folder: Path, file: DataFile) -> Iterator[Path]:
    return folder.glob(f"{escape(file.name)}.*-of-*.safetensors")


def _path(folder: Path, file: DataFile, number: int, count: int) -> Path:
    part = "" if file.is_shard else f".{number:05d}-of-{count:05d}"
    return folder / f"{file.name}{part}.safetensors"
