"""Batch sources of a loader: the memory, pairs read in any order, or shards; each knows its position."""

from __future__ import annotations

from dataclasses import dataclass
from operator import mul
from typing import Any

from harness.data.batch import Batch
from harness.data.chunks import Chunk, Decoder, too_few
from harness.data.dataloader import Chunks
from harness.data.gather import ShardChunks
from harness.data.indexed import IndexedChunks, Requests
from harness.data.lanes import shares_shards
from harness.data.memory_cache import MemoryCache
from harness.data.order import EpochOrder
from harness.data.shards import ShardSource
from harness.data.skipped import SkippedSamples
from harness.data.sources import Opened
from harness.errors import UserError


@dataclass(frozen=True)
class Share:
    """Rank-local slice of the global batch: rank `rank` of `world_size` takes `batch_size` rows."""

    batch_size: int
    rank: int
    world_size: int

    @property
    def global_batch(self) -> int:
        """Pairs in a batch of all processes."""
        return self.batch_size * self.world_size

    @property
    def rows(self) -> slice:
        """This process's rows of it."""
        return slice(self.rank * self.batch_size, (self.rank + 1) * self.batch_size)


@dataclass(frozen=True)
class Workers:
    """How batches are made: by how many processes beside this one, and into which kind of memory."""

    count: int
    pin_memory: bool


class MemoryFeed:
    """Batches of what is in memory.

    Args:
        memory: the pairs.
        share: this process's part.
        pin_memory: whether batches are put into page-locked memory.
        about: what the pairs are.
        position: what `position` gave in the run that goes on.
    """

    def __init__(
        self, memory: MemoryCache, share: Share, pin_memory: bool, about: str, position: dict[str, int] | None
    ) -> None:
        if len(memory) < share.global_batch:
            raise UserError(too_few(len(memory), share.global_batch))
        if position is not None and position["usable"] != len(memory):
            raise UserError(
                f"the run cannot go on in the same data order: data.train held {position['usable']} usable samples at "
                f"its checkpoint and holds {len(memory)} now; put the data back as it was, or start a new run."
            )
        self.num_samples: int | None = len(memory.epoch_order)
        self.about = f"{len(memory)} pairs from {about}, {memory.num_bytes / 2**20:.0f} MiB in memory"
        self._num_pairs, self._pin_memory = len(memory), pin_memory
        self._num_batches = position["batches"] if position else 0
        self._batches = memory.batches(share.global_batch, share.rows, self._num_batches)

    def __next__(self) -> Batch:
        batch = next(self._batches)
        self._num_batches += 1
        return batch.pin_memory() if self._pin_memory else batch

    def position(self) -> dict[str, int]:
        """Return where it stands after the last batch."""
        return {"batches": self._num_batches, "usable": self._num_pairs}

    def lost_worker(self, error: Exception) -> UserError | None:
        """None: it has no workers."""
        return None

    def close(self) -> None:
        """Stop."""
        self._batches.close()


class IndexedFeed:
    """Batches of pairs that can be read in any order; arguments as for ShardFeed."""

    def __init__(
        self,
        opened: Opened,
        decoder: Decoder,
        share: Share,
        workers: Workers,
        log: SkippedSamples,
        position: int | None,
    ) -> None:
        epoch_order, source = opened.epoch_order, opened.source
        assert not isinstance(source, ShardSource)  # those have a feed of their own
        self.num_samples: int | None = len(epoch_order)
        self.about = f"{len(source)} pairs from {opened.about}, decoded as they are needed"
        self._log, self._position = log, position or 0
        self._per_epoch = len(epoch_order) // share.global_batch
        slots = range(share.global_batch)[share.rows]
        self._chunks = Chunks(
            IndexedChunks(source, decoder, epoch_order.seed, slots, epoch_order.once),
            Requests(epoch_order, share.global_batch, self._position),
            seed=epoch_order.seed,
            workers=workers.count,
            pin_memory=workers.pin_memory,
        )

    def __next__(self) -> Batch:
        if self._position % self._per_epoch == 0:
            self._log.add([], 0, complete=True)
        batch = _take(next(self._chunks), self._log)
        self._position += 1
        return batch

    def position(self) -> int:
        """Return the number of batches handed out."""
        return self._position

    def lost_worker(self, error: Exception) -> UserError | None:
        """See `Chunks.lost_worker`."""
        return self._chunks.lost_worker(error)

    def close(self) -> None:
        """Stop the workers."""
        self._chunks.close()


class ShardFeed:
    """Batches of a stream of shards.

    Args:
        opened: the pairs.
        decoder: makes the batches.
        share: this process's part.
        workers: how they are made.
        log: counts skipped samples.
        position: what `position` gave in the run that goes on.
    """

    def __init__(
        self,
        opened: Opened,
        decoder: Decoder,
        share: Share,
        workers: Workers,
        log: SkippedSamples,
        position: dict[str, Any] | None,
    ) -> None:
        own = max(1, workers.count)
        lanes, epoch_order, source = own * share.world_size, opened.epoch_order, opened.source
        assert isinstance(source, ShardSource)  # all others have a feed of their own
        shared = (
            f", fewer than the {lanes} readers, which share each of them" if shares_shards(epoch_order, lanes) else ""
        )
        self.num_samples: int | None = _pairs_per_epoch(source, epoch_order)
        self.about = f"a stream of {len(source.shards)} shards from {opened.about}{shared}"
        self._log = log
        dataset = ShardChunks(
            source,
            epoch_order,
            decoder,
            batch_size=share.batch_size,
            seed=epoch_order.seed,
            first_lane=share.rank * own,
            lanes=lanes,
        )
        self._chunks = Chunks(
            dataset, None, seed=epoch_order.seed, workers=workers.count, pin_memory=workers.pin_memory, state=position
        )

    def __next__(self) -> Batch:
        return _take(next(self._chunks), self._log)

    def position(self) -> dict[str, Any]:
        """Return where every worker stands after its last batch handed out."""
        return self._chunks.state_dict()

    def lost_worker(self, error: Exception) -> UserError | None:
        """See `Chunks.lost_worker`."""
        return self._chunks.lost_worker(error)

    def close(self) -> None:
        """Stop the workers."""
        self._chunks.close()


def _pairs_per_epoch(source: ShardSource, epoch_order: EpochOrder) -> int | None:
    """Return the number of pairs in an epoch, None where a shard's size is not written down beside it."""
    weights = [weight for size, weight in zip(source.sizes, epoch_order.weights, strict=True) for _ in range(size)]
    pairs = source.pairs()
    return None if None in pairs else round(sum(map(mul, pairs, weights)))


def _take(chunk: Chunk, log: SkippedSamples) -> Batch:
    """Count what was skipped and return the batch, or end the run if there is none."""
    log.add(chunk.bad, len(chunk.good) if chunk.good else 0)
    if chunk.good is None:
        raise UserError(chunk.failure or "")
    return chunk.good
