"""A data set cut into units that are worked on apart: a shard, or some rows of CSV files."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from harness.config import DataConfig
from harness.data.csv_files import CsvSource
from harness.data.entries import describe, entries
from harness.data.samples import RawSample, SkippedSample
from harness.data.shards import ShardSource
from harness.data.sources import open_train
from harness.errors import UserError


@dataclass(frozen=True)
class WorkUnit:
    """One piece of the data.

    Attributes:
        number: which piece it is.
        shard: the shard that it is; None for rows of CSV files.
        rows: those rows, each with its number in its file, of which 1 follows the header.
        start: how many rows the units before hold.
    """

    number: int
    shard: str | None
    rows: tuple[tuple[int, RawSample], ...] = ()
    start: int = 0

    def read(self, on_broken: Callable[[SkippedSample], None]) -> Iterator[RawSample]:
        """Yield the samples; a shard that breaks off is handed to `on_broken`."""
        if self.shard is None:
            return (raw for _, raw in self.rows)
        return ShardSource([self.shard]).read([0], on_broken)


class WorkUnits(Sequence[WorkUnit]):
    """All pieces of a data set, each made when it is asked for.

    Args:
        cfg: what to read, as in a recipe.
        rows: how many rows of CSV files make a unit; a shard is always one.

    Attributes:
        about: the sources in words.
        source: the opened source.
        files: every file of it, in order.

    Raises:
        UserError: nothing is there, or it is neither shards nor CSV files.
    """

    def __init__(self, cfg: DataConfig, rows: int) -> None:
        opened = open_train(cfg, image_size=1, seed=0)
        if not isinstance(opened.source, CsvSource | ShardSource):
            raise UserError(
                f"data.train: {describe(cfg)} is made up while training, there are no files to read; give shards or "
                "CSV files."
            )
        self.about = opened.about
        self.source: CsvSource | ShardSource = opened.source
        self.files = self.source.shards if isinstance(self.source, ShardSource) else [e.path for e in entries(cfg)]
        self._rows = rows
        self._ends = list(accumulate(self.source.sizes))

    @property
    def num_samples(self) -> int | None:
        """How many samples there are; None for shards, which would have to be read for it."""
        return len(self.source) if isinstance(self.source, CsvSource) else None

    def __len__(self) -> int:
        return len(self.source.shards) if isinstance(self.source, ShardSource) else -(-len(self.source) // self._rows)

    def __getitem__(self, number: int) -> WorkUnit:  # type: ignore[override]  # nobody needs slices
        if not 0 <= number < len(self):
            raise IndexError(number)
        if isinstance(self.source, ShardSource):
            return WorkUnit(number, self.source.shards[number])
        start = number * self._rows
        stop = min(start + self._rows, len(self.source))
        rows = tuple((self._row(index), self.source[index]) for index in range(start, stop))
        return WorkUnit(number, None, rows, start)

    def _row(self, index: int) -> int:
        file = bisect_right(self._ends, index)
        return index - (self._ends[file - 1] if file else 0) + 1


def file_name(shard: str) -> str:
    """Return the last part of a path or address."""
    return shard.rpartition("/")[2]
