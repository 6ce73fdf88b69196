"""Statistics of a data set: samples, faults by kind and by shard, distributions of caption and image sizes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from harness.data.samples import OF_SHARDS, SkippedSample
from harness.data.tools.sample_probe import SampleInfo

Measures = dict[str, Counter[int]]  # how often each value of a quantity occurs; exact, and small for any data set

CAPTION, WIDTH, HEIGHT = "caption, characters", "image width, pixels", "image height, pixels"


def no_measures() -> Measures:
    """Return empty counts of every quantity that is measured."""
    return {name: Counter() for name in (CAPTION, WIDTH, HEIGHT)}


@dataclass
class ShardStats:
    """One shard, or one CSV file: how many samples can be used, and the faults of the others."""

    usable: int = 0
    skipped: Counter[str] = field(default_factory=Counter)

    @property
    def num_read(self) -> int:
        """Samples that were met, usable or not."""
        return self.usable + sum(count for kind, count in self.skipped.items() if kind not in OF_SHARDS)


@dataclass
class DatasetStats:
    """The sum over what was scanned so far.

    Attributes:
        shards: by name, in the order met.
        first: of each kind of fault the first sample.
        measures: how often each length and size occurs among the usable samples.
    """

    shards: dict[str, ShardStats] = field(default_factory=dict)
    first: dict[str, SkippedSample] = field(default_factory=dict)
    measures: Measures = field(default_factory=no_measures)

    @property
    def num_usable(self) -> int:
        """Usable samples."""
        return sum(shard.usable for shard in self.shards.values())

    @property
    def skipped(self) -> Counter[str]:
        """Faults by kind."""
        return sum((shard.skipped for shard in self.shards.values()), Counter())

    @property
    def num_read(self) -> int:
        """Samples that were met, usable or not."""
        return sum(shard.num_read for shard in self.shards.values())

    def add_usable(self, shard: str, info: SampleInfo) -> None:
        """Take in a usable sample."""
        self.shards.setdefault(shard, ShardStats()).usable += 1
        for name, value in ((CAPTION, len(info.caption)), (WIDTH, info.width), (HEIGHT, info.height)):
            self.measures[name][value] += 1

    def add_skipped(self, sample: SkippedSample) -> None:
        """Take in a sample that cannot be used, or a shard that breaks off."""
        self.shards.setdefault(sample.shard, ShardStats()).skipped[sample.kind] += 1
        self.first.setdefault(sample.kind, sample)

    def merge(self, other: DatasetStats) -> None:
        """Take in what others hold."""
        for name, shard in other.shards.items():
            mine = self.shards.setdefault(name, ShardStats())
            mine.usable += shard.usable
            mine.skipped += shard.skipped
        self.first = other.first | self.first
        for name, counts in other.measures.items():
            self.measures[name].update(counts)


def spread(counts: Counter[int]) -> tuple[int, int, int] | None:
    """Return smallest, median (the lower one of two) and largest value, None if there is none."""
    if not counts:
        return None
    half, reached = (counts.total() + 1) // 2, 0
    for value in sorted(counts):
        reached += counts[value]
        if reached >= half:
            return min(counts), value, max(counts)
    raise AssertionError("half of the total is always reached")
