"""The cache in memory: decode once, then a batch costs an index."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count, islice

import torch
from torch import LongTensor, Tensor

from harness.data.bad import BadSampleLog
from harness.data.batch import Batch
from harness.data.decode import decode
from harness.data.samples import BadSample, RawSample
from harness.data.seeds import derive, permutation
from harness.data.shards import ShardSource
from harness.data.sources import IndexedSource
from harness.data.tokens import Tokenizers, tokenize
from harness.data.view import View

_READ_AHEAD = 512  # undecoded samples held at once while the cache fills


@dataclass(frozen=True)
class Memory:
    """Every usable pair, decoded: `images` are the views, [N, 3, S, S], or a list of what random crops are cut from."""

    images: Tensor | list[Tensor]
    tokens: dict[str, LongTensor]
    captions: list[str]
    keys: list[str]
    view: View

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def num_bytes(self) -> int:
        """Memory that the images take."""
        return sum(image.nbytes for image in self.images)

    def batches(self, batch_size: int, seed: int, start: int) -> Iterator[Batch]:
        """Yield full batches for ever, beginning with batch `start`; each pass is a new order of all pairs."""
        per_pass = len(self) // batch_size
        for number in count(start):
            epoch, place = divmod(number, per_pass)
            if place == 0 or number == start:
                order = permutation(len(self), seed, "order", epoch)
            yield self._batch(order[place * batch_size : (place + 1) * batch_size], seed, epoch)

    def _batch(self, chosen: Tensor, seed: int, epoch: int) -> Batch:
        indices = chosen.tolist()
        return Batch(
            self._views(chosen, seed, epoch),
            {name: ids[chosen] for name, ids in self.tokens.items()},
            [self.captions[index] for index in indices],
            [self.keys[index] for index in indices],
        )

    def _views(self, chosen: Tensor, seed: int, epoch: int) -> Tensor:
        if isinstance(self.images, Tensor):
            return self.images[chosen]
        return torch.stack(
            [self.view(self.images[index], derive(seed, "view", epoch, index)) for index in chosen.tolist()]
        )


def fill(
    source: IndexedSource | ShardSource, view: View, tokenizers: Tokenizers, log: BadSampleLog, *, threads: int
) -> Memory:
    """Read and decode the whole source once.

    Raises:
        UserError: a shard is broken, or too many samples are bad.
    """
    bad: list[BadSample] = []
    images, captions, keys = [], [], []
    for key, decoded in _decode_all(_read_all(source, log), view, threads):
        if isinstance(decoded, BadSample):
            bad.append(decoded)
            continue
        images.append(decoded[0])
        captions.append(decoded[1])
        keys.append(key)
    log.add(bad, len(keys), complete=True)
    images = images if view.random or not images else torch.stack(images)
    return Memory(images, tokenize(tokenizers, captions), captions, keys, view)


def _read_all(source: IndexedSource | ShardSource, log: BadSampleLog) -> Iterator[RawSample]:
    if isinstance(source, ShardSource):
        # A broken shard ends the run at once, not after all the others are decoded.
        return source.read(range(len(source.shards)), lambda broken: log.add([broken], 0))
    return (source[index] for index in range(len(source)))


def _decode_all(
    samples: Iterator[RawSample], view: View, threads: int
) -> Iterable[tuple[str, tuple[Tensor, str] | BadSample]]:
    def work(raw: RawSample) -> tuple[str, tuple[Tensor, str] | BadSample]:
        decoded = decode(raw)
        kept = decoded if isinstance(decoded, BadSample) else (view.to_keep(decoded[0]), decoded[1])
        return raw.key, kept

    # Threads, not processes: PIL and torch release the GIL, and the images need no copy.
    with ThreadPoolExecutor(threads) as pool:
        while ahead := list(islice(samples, _READ_AHEAD)):
            yield from pool.map(work, ahead)
