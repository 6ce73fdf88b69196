"""Where a loader's batches come from: the memory, pairs read in any order, or shards; each knows its position."""

from __future__ import annotations

from dataclasses import dataclass
from operator import mul
from typing import Any

from harness.data.bad import BadSampleLog
from harness.data.batch import Batch
from harness.data.chunks import Chunk, Decoder, too_few
from harness.data.dataloader import Chunks
from harness.data.gather import ShardChunks
from harness.data.indexed import IndexedChunks, Requests
from harness.data.lanes import shares_shards
from harness.data.memory import Memory
from harness.data.order import Visits
from harness.data.shards import ShardSource
from harness.data.sources import Opened
from harness.errors import UserError


@dataclass(frozen=True)
class Share:
    """One process's part of every batch: rank `rank` of `world_size` takes `batch_size` rows."""

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
        self, memory: Memory, share: Share, pin_memory: bool, about: str, position: dict[str, int] | None
    ) -> None:
        if len(memory) < share.global_batch:
            raise UserError(too_few(len(memory), share.global_batch))
        if position is not None and position["usable"] != len(memory):
            raise UserError(
                f"the run cannot go on in the same data order: data.train held {position['usable']} usable samples at "
                f"its checkpoint and holds {len(memory)} now; put the data back as it was, or start a new run."
            )
        self.num_samples: int | None = len(memory.visits)
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

    def close(self) -> None:
        """Stop."""
        self._batches.close()


class IndexedFeed:
    """Batches of pairs that can be read in any order; arguments as for ShardFeed."""

    def __init__(
        self, opened: Opened, decoder: Decoder, share: Share, workers: Workers, log: BadSampleLog, position: int | None
    ) -> None:
        visits, source = opened.visits, opened.source
        assert not isinstance(source, ShardSource)  # those have a feed of their own
        self.num_samples: int | None = len(visits)
        self.about = f"{len(source)} pairs from {opened.about}, decoded as they are needed"
        self._log, self._position = log, position or 0
        self._per_pass = len(visits) // share.global_batch
        slots = range(share.global_batch)[share.rows]
        self._chunks = Chunks(
            IndexedChunks(source, decoder, visits.seed, slots, visits.once),
            Requests(visits, share.global_batch, self._position),
            seed=visits.seed,
            workers=workers.count,
            pin_memory=workers.pin_memory,
        )

    def __next__(self) -> Batch:
        if self._position % self._per_pass == 0:
            self._log.add([], 0, complete=True)
        batch = _take(next(self._chunks), self._log)
        self._position += 1
        return batch

    def position(self) -> int:
        """Return the number of batches handed out."""
        return self._position

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
        log: takes what is bad.
        position: what `position` gave in the run that goes on.
    """

    def __init__(
        self,
        opened: Opened,
        decoder: Decoder,
        share: Share,
        workers: Workers,
        log: BadSampleLog,
        position: dict[str, Any] | None,
    ) -> None:
        own = max(1, workers.count)
        lanes, visits, source = own * share.world_size, opened.visits, opened.source
        assert isinstance(source, ShardSource)  # all others have a feed of their own
        shared = f", fewer than the {lanes} readers, which share each of them" if shares_shards(visits, lanes) else ""
        self.num_samples: int | None = _pairs_a_pass(source, visits)
        self.about = f"a stream of {len(source.shards)} shards from {opened.about}{shared}"
        self._log = log
        dataset = ShardChunks(
            source,
            visits,
            decoder,
            batch_size=share.batch_size,
            seed=visits.seed,
            first_lane=share.rank * own,
            lanes=lanes,
        )
        self._chunks = Chunks(
            dataset, None, seed=visits.seed, workers=workers.count, pin_memory=workers.pin_memory, state=position
        )

    def __next__(self) -> Batch:
        return _take(next(self._chunks), self._log)

    def position(self) -> dict[str, Any]:
        """Return where every worker stands after its last batch handed out."""
        return self._chunks.state_dict()

    def close(self) -> None:
        """Stop the workers."""
        self._chunks.close()


def _pairs_a_pass(source: ShardSource, visits: Visits) -> int | None:
    """Return how many pairs a pass visits, None where a shard's size is not written down beside it."""
    weights = [weight for size, weight in zip(source.sizes, visits.weights, strict=True) for _ in range(size)]
    pairs = source.pairs()
    return None if None in pairs else round(sum(map(mul, pairs, weights)))


def _take(chunk: Chunk, log: BadSampleLog) -> Batch:
    """Note what was bad and return the batch, or end the run if there is none."""
    log.add(chunk.bad, len(chunk.good) if chunk.good else 0)
    if chunk.good is None:
        raise UserError(chunk.failure or "")
    return chunk.good
