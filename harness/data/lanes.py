"""The way of one reader through shards: what it reads, in which order, and where it stands.

A reader, a lane, is one worker of one process. Each epoch the shuffled shards are dealt out to the lanes; where there
are fewer shards than lanes, every lane reads all of them and takes every so-manyth sample. What a lane reads is cut
into blocks, and each block is shuffled, so that a place is a few numbers and going on from it reads no more than the
part of a shard before it and one block.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

from harness.data.order import EpochOrder, deal
from harness.data.samples import RawSample
from harness.data.seeds import derive, permutation
from harness.data.shards import OnBroken, ShardSource

# Undecoded samples held at once by a lane, within which they are shuffled.
BLOCK = 2000


@dataclass(frozen=True)
class Place:
    """Where a lane stands between two batches.

    Attributes:
        epoch: from 0.
        shard: of the shards dealt to the lane in this epoch, the one in which the current block begins.
        offset: the number of samples of that shard before the block.
        taken: how many of the block, in its shuffled order, have been looked at.
        held: those looked at that wait for another batch, because the one before had them already; as places in the
            block.
    """

    epoch: int = 0
    shard: int = 0
    offset: int = 0
    taken: int = 0
    held: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Item:
    """An undecoded sample: `shard` and `offset` are its place as in Place, `name` tells it apart from all others."""

    shard: int
    offset: int
    name: tuple[int, str]
    seed: int
    raw: RawSample


def shares_shards(epoch_order: EpochOrder, lanes: int) -> bool:
    """Tell whether an epoch has too few shards to deal out, so that every lane reads all of them."""
    return len(epoch_order) < lanes


@dataclass(frozen=True)
class Route:
    """What lane number `lane` of `lanes` reads."""

    source: ShardSource
    epoch_order: EpochOrder
    seed: int
    lane: int
    lanes: int

    @property
    def shares_shards(self) -> bool:
        """Whether every lane reads all shards and takes its samples of each."""
        return shares_shards(self.epoch_order, self.lanes)

    def shards(self, epoch: int) -> list[int]:
        """Return the numbers of the shards that the lane reads in an epoch, in order."""
        order = self.epoch_order.order(epoch, "shards").tolist()
        return order if self.shares_shards else deal(order, self.lane, self.lanes)

    def blocks(self, place: Place, on_broken: OnBroken) -> Iterator[list[Item]]:
        """Yield the rest of an epoch in blocks, from the beginning of the block that `place` is in."""
        items = self._items(place, on_broken)
        while block := list(islice(items, BLOCK)):
            yield block

    def shuffled(self, block: list[Item], epoch: int) -> list[int]:
        """Return the order of a block."""
        first = block[0]
        return permutation(len(block), self.seed, "block", epoch, self.lane, first.shard, first.offset).tolist()

    def _items(self, place: Place, on_broken: OnBroken) -> Iterator[Item]:
        shards = self.shards(place.epoch)
        for position in range(place.shard, len(shards)):
            number = shards[position]
            begin = place.offset if position == place.shard else 0
            for offset, raw in enumerate(self.source.read([number], on_broken)):
                if offset >= begin and self._is_mine(number, offset):
                    # The position tells readings of one shard in one epoch apart.
                    seed = derive(self.seed, "view", place.epoch, number, raw.key, position)
                    yield Item(position, offset, (number, raw.key), seed, raw)

    def _is_mine(self, number: int, offset: int) -> bool:
        return not self.shares_shards or (number + offset) % self.lanes == self.lane
