"""Pairs that can be read in any order: requests for batches, and their decoding."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, count

from torch.utils.data import Dataset, Sampler

from harness.data.chunks import Chunk, Decoder, Sample, too_few
from harness.data.order import EpochOrder
from harness.data.samples import SkippedSample
from harness.data.seeds import derive
from harness.data.sources import IndexedSource
from harness.errors import UserError

Row = tuple[int, Sample]  # a sample's number, and itself


@dataclass(frozen=True)
class ChunkRequest:
    """Batch `number` of an epoch: the samples of the batch over all processes."""

    epoch: int
    number: int
    batch: list[int]


@dataclass(frozen=True)
class Requests(Sampler[ChunkRequest]):
    """Requests for ever, beginning after `start` batches; what is left of an epoch at its end is not asked for.

    Joined to the next epoch it could put a pair twice into one batch.
    """

    epoch_order: EpochOrder
    batch_size: int
    start: int

    def __iter__(self) -> Iterator[ChunkRequest]:
        per_epoch = len(self.epoch_order) // self.batch_size
        for number in count(self.start):
            epoch, place = divmod(number, per_epoch)
            if place == 0 or number == self.start:
                order = self.epoch_order.batches(epoch, self.batch_size)
            yield ChunkRequest(epoch, place, order[place * self.batch_size : (place + 1) * self.batch_size].tolist())


@dataclass(frozen=True)
class IndexedChunks(Dataset[Chunk]):
    """Decodes one process's slots of a request.

    A sample that cannot be used is replaced by another that the seed alone decides on. Each slot of a batch has samples
    of its own to choose from, so no process need know what the others met, and no sample comes twice.

    Attributes:
        slots: the rows of the batch that this process decodes.
        once: whether an epoch draws every sample once, so that the epoch is enough to tell its views apart.
    """

    source: IndexedSource
    decoder: Decoder
    seed: int
    slots: range
    once: bool

    def __getitem__(self, request: ChunkRequest) -> Chunk:
        bad: list[SkippedSample] = []
        try:
            return self._chunk(request, bad)
        except UserError as error:
            # A worker's exception would reach the user with its traceback as the message.
            return Chunk(None, bad, str(error))

    def _chunk(self, request: ChunkRequest, bad: list[SkippedSample]) -> Chunk:
        members = _first_slots(request.batch)
        rows = [self._first_usable(self._choices(request, members, slot), request, bad) for slot in self.slots]
        if None in rows and len(bad) < give_up_after(len(self.slots)):
            whole = self._from_all(request, members, bad)
            rows = [whole[slot] for slot in self.slots]
            if None in rows:
                return Chunk(None, bad, too_few(sum(row is not None for row in whole), len(whole)))
        if None in rows:
            return Chunk(None, bad, all_bad(bad))
        return Chunk(self.decoder.batch([row[1] for row in rows if row]), bad)

    def _choices(self, request: ChunkRequest, members: dict[int, int], slot: int) -> Iterator[int]:
        """Yield the slot's own sample, if it is the first such in the batch, then what may replace it."""
        if members[request.batch[slot]] == slot:
            yield request.batch[slot]
        own = range(slot, len(self.source), len(request.batch))
        begin = derive(self.seed, "instead", request.epoch, request.number, slot) % len(own)
        yield from (index for index in chain(own[begin:], own[:begin]) if index not in members)

    def _first_usable(self, choices: Iterable[int], request: ChunkRequest, bad: list[SkippedSample]) -> Row | None:
        epoch, again = request.epoch, None if self.once else request.number
        for index in choices:
            sample = self.decoder.sample(self.source[index], view_seed(self.seed, epoch, index, again), epoch)
            if not isinstance(sample, SkippedSample):
                return index, sample
            bad.append(sample)
            if len(bad) >= give_up_after(len(self.slots)):
                break
        return None

    def _from_all(self, request: ChunkRequest, members: dict[int, int], bad: list[SkippedSample]) -> list[Row | None]:
        """Return the whole batch, slots without a choice left filled from what no other slot has chosen.

        Every process comes to the same answer, for it looks at all slots; only with little data it ever has to.
        """
        slots = range(len(request.batch))
        met: list[SkippedSample] = []
        whole = [self._first_usable(self._choices(request, members, slot), request, met) for slot in slots]
        taken = {*members, *(row[0] for row in whole if row)}
        spare = (index for index in range(len(self.source)) if index not in taken)
        return [row or self._first_usable(spare, request, bad) for row in whole]


def _first_slots(batch: list[int]) -> dict[int, int]:
    """Return where each sample of a batch first stands in it."""
    return {index: slot for slot, index in reversed(list(enumerate(batch)))}


def view_seed(seed: int, epoch: int, index: int, again: int | None) -> int:
    """Return the seed of a sample's view; `again`, the batch's number, tells several draws in one epoch apart."""
    return derive(seed, "view", epoch, index, *(() if again is None else (again,)))


def give_up_after(batch_size: int) -> int:
    """Return how many unusable samples may be met on the way to one batch: one in 20 usable is too few for any use."""
    return max(1000, 20 * batch_size)


def all_bad(bad: Sequence[SkippedSample]) -> str:
    """Return the message for data in which next to nothing can be used."""
    last = bad[-1]
    return (
        f"data.train: {len(bad)} samples could not be used while one batch was put together, the last is {last.key} in "
        f"{last.shard} ({last.kind}: {last.reason}); look at the data with `clipkd data check`."
    )
