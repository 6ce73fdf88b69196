"""Endless passes over a source, decoded on the way, by worker processes if there are any."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice

import torch
import webdataset
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler, get_worker_info

from harness.data.chunks import Chunk, Decoder
from harness.data.samples import BadSample
from harness.data.seeds import derive, permutation
from harness.data.shards import ShardSource
from harness.data.sources import IndexedSource

# A stream shuffles its shards and then within a buffer of this many undecoded samples in each worker.
BUFFER = 2000

Request = tuple[int, list[int]]  # the pass and the samples to read


@dataclass(frozen=True)
class Shuffled(Sampler[Request]):
    """Every sample once a pass in an order of its own, cut into requests of a batch; `start` batches are left out."""

    num_samples: int
    batch_size: int
    seed: int
    start: int

    def __iter__(self) -> Iterator[Request]:
        first_epoch, skipped = divmod(self.start, self.num_samples // self.batch_size)
        for epoch in count(first_epoch):
            order = permutation(self.num_samples, self.seed, "order", epoch).tolist()
            for begin in range(skipped * self.batch_size, self.num_samples, self.batch_size):
                yield epoch, order[begin : begin + self.batch_size]
            skipped = 0


@dataclass(frozen=True)
class IndexedChunks(Dataset[Chunk]):
    """Decodes requests; a sample's view depends on the seed, the pass and the sample, not on who decodes it."""

    source: IndexedSource
    decoder: Decoder
    seed: int

    def __getitem__(self, request: Request) -> Chunk:
        epoch, indices = request
        samples = ((self.source[index], derive(self.seed, "view", epoch, index)) for index in indices)
        return self.decoder.chunk(samples, epoch)


@dataclass(frozen=True)
class ShardChunks(IterableDataset[Chunk]):
    """Reads shards for ever; each worker takes its share of them in every pass."""

    source: ShardSource
    decoder: Decoder
    batch_size: int
    seed: int
    start: int

    def __iter__(self) -> Iterator[Chunk]:
        worker = get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        # A resumed stream cannot go on where it stopped without reading all before it: it gets an order of its own.
        seed = derive(self.seed, "shards", self.start)
        for epoch in count():
            shards = permutation(len(self.source.shards), seed, epoch).tolist()[number::workers]
            yield from self._one_pass(shards, derive(seed, epoch, number))

    def _one_pass(self, shards: list[int], seed: int) -> Iterator[Chunk]:
        bad: list[BadSample] = []
        raw = self.source.read(shards, bad.append)
        shuffled = webdataset.shuffle(BUFFER, initial=BUFFER, seed=seed)(raw)
        samples = ((sample, derive(seed, index)) for index, sample in enumerate(shuffled))
        # Passes overlap between workers, so to full_batches the stream is one pass.
        while read := list(islice(samples, self.batch_size)):
            yield self.decoder.chunk(read, 0, bad)
            bad.clear()
        if bad:
            yield self.decoder.chunk((), 0, bad)


def stream(
    source: IndexedSource | ShardSource, decoder: Decoder, *, batch_size: int, seed: int, start: int, workers: int
) -> Iterator[Chunk]:
    """Return endless chunks of at most `batch_size` samples."""
    # Without a generator of its own the DataLoader would draw from torch's global one.
    generator = torch.Generator().manual_seed(derive(seed, "workers"))
    if isinstance(source, ShardSource):
        dataset: Dataset[Chunk] = ShardChunks(source, decoder, batch_size, seed, start)
        sampler = None
    else:
        dataset = IndexedChunks(source, decoder, seed)
        sampler = Shuffled(len(source), batch_size, seed, start)
    return iter(DataLoader(dataset, batch_size=None, sampler=sampler, num_workers=workers, generator=generator))
