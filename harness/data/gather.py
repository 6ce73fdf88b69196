"""Full batches out of the samples that a lane reads."""

from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from torch.utils.data import IterableDataset, get_worker_info

from harness.data.chunks import Chunk, Decoder, Sample, too_few
from harness.data.indexed import all_bad, give_up_after
from harness.data.lanes import Item, Place, Route
from harness.data.order import EpochOrder
from harness.data.samples import SkippedSample
from harness.data.shards import ShardSource
from harness.errors import UserError

# Epochs without anything new for a batch until it is given up: a lane may be dealt the same shard several times.
_PATIENCE = 50


@dataclass
class _Open:
    """The batch that is being filled."""

    samples: list[Sample] = field(default_factory=list)
    names: set[tuple[int, str]] = field(default_factory=set)
    bad: list[SkippedSample] = field(default_factory=list)

    def close(self, decoder: Decoder) -> Chunk:
        """Return the batch and begin another."""
        chunk = Chunk(decoder.batch(self.samples), list(self.bad))
        self.samples, self.names = [], set()
        self.bad.clear()  # the shards are being read into this very list
        return chunk


class ShardChunks(IterableDataset[Chunk]):
    """Batches for ever; each worker is a lane, and what is left of an epoch is joined to the next.

    Args:
        source: the shards.
        epoch_order: of the shards.
        decoder: makes the batches.
        batch_size: pairs in a batch of this process.
        seed: decides on order and crops.
        first_lane: the number of this process's first lane.
        lanes: the number of lanes of all processes.
    """

    def __init__(
        self,
        source: ShardSource,
        epoch_order: EpochOrder,
        decoder: Decoder,
        *,
        batch_size: int,
        seed: int,
        first_lane: int,
        lanes: int,
    ) -> None:
        self._source, self._epoch_order, self._decoder = source, epoch_order, decoder
        self._batch_size, self._seed = batch_size, seed
        self._first_lane, self._lanes = first_lane, lanes
        self._place = Place()

    def state_dict(self) -> dict[str, Any]:
        """Return the place after the last batch; the DataLoader asks for it after each."""
        return asdict(self._place)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a place; the DataLoader calls this before the first batch."""
        self._place = Place(**state)

    def __iter__(self) -> Iterator[Chunk]:
        worker = get_worker_info()
        lane = self._first_lane + (worker.id if worker else 0)
        route = Route(self._source, self._epoch_order, self._seed, lane, self._lanes)
        batch = _Open()
        try:
            yield from self._epochs(route, batch)
        except UserError as error:
            # A worker's exception would reach the user with its traceback as the message.
            # It is the last: who asked for a batch ends the run.
            yield Chunk(None, list(batch.bad), str(error))

    def _epochs(self, route: Route, batch: _Open) -> Iterator[Chunk]:
        idle, place = 0, self._place
        while True:
            before = len(batch.samples)
            for chunk in self._one_epoch(route, place, batch):
                before = -1
                yield chunk
            idle = idle + 1 if len(batch.samples) == before else 0
            if idle == _PATIENCE:
                raise UserError(self._too_few(len(batch.samples)))
            place = Place(epoch=place.epoch + 1)

    def _one_epoch(self, route: Route, place: Place, batch: _Open) -> Iterator[Chunk]:
        for block in route.blocks(place, batch.bad.append):
            begin = Place(place.epoch, block[0].shard, block[0].offset, place.taken, place.held)
            yield from self._one_block(route, begin, block, batch)
            block.clear()  # before the next is read: a block may be hundreds of megabytes
            place = Place(place.epoch)

    def _one_block(self, route: Route, place: Place, block: list[Item], batch: _Open) -> Iterator[Chunk]:
        order = route.shuffled(block, place.epoch)
        held, later, taken = deque(place.held), [], place.taken
        while held or taken < len(order):
            if held:
                number = held.popleft()
            else:
                number, taken = order[taken], taken + 1
            if block[number].name in batch.names:
                later.append(number)
                continue
            self._add(block[number], place.epoch, batch)
            if len(batch.samples) == self._batch_size:
                held, later = deque([*later, *held]), []
                self._place = Place(place.epoch, place.shard, place.offset, taken, list(held))
                yield batch.close(self._decoder)
            elif len(batch.bad) >= give_up_after(self._batch_size):
                raise UserError(all_bad(batch.bad))
        # What is still held is in the open batch already.

    def _add(self, item: Item, epoch: int, batch: _Open) -> None:
        sample = self._decoder.sample(item.raw, item.seed, epoch)
        if isinstance(sample, SkippedSample):
            batch.bad.append(sample)
        else:
            batch.samples.append(sample)
            batch.names.add(item.name)

    def _too_few(self, found: int) -> str:
        if self._lanes == 1:
            return too_few(found, self._batch_size)
        return (
            f"data.train: one of the {self._lanes} readers (processes x data.workers) gets {found} usable samples, "
            f"fewer than its batch of {self._batch_size}; lower data.workers or train.batch_size, or add data."
        )
