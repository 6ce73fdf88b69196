"""In-memory cache of decoded images: each is decoded once, then a batch costs one index operation."""

from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import count, islice

import torch
from torch import Tensor

from harness.data.batch import Batch
from harness.data.chunks import Decoder, not_cached, stack_cached
from harness.data.decode import decode
from harness.data.indexed import view_seed
from harness.data.order import EpochOrder
from harness.data.samples import RawSample, SkippedSample
from harness.data.shards import ShardSource
from harness.data.skipped import SkippedSamples
from harness.data.sources import IndexedSource, Opened
from harness.data.tokens import tokenize

_READ_AHEAD = 512  # undecoded samples held at once while the cache fills

Read = tuple[int, RawSample]  # the number of the entry of data.train that it comes from, and the sample


@dataclass(frozen=True)
class MemoryCache:
    """Every usable pair, decoded.

    Attributes:
        images: the views, [N, 3, S, S], or a list of what random crops are cut from.
        tokens: for each tokenizer int64 [N, L].
        captions: the N captions.
        samples: the N samples without their content.
        epoch_order: the order of every epoch over them.
        decoder: cuts the views.
    """

    images: Tensor | list[Tensor]
    tokens: dict[str, Tensor]
    captions: list[str]
    samples: list[RawSample]
    epoch_order: EpochOrder
    decoder: Decoder

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def num_bytes(self) -> int:
        """Size of the images in bytes."""
        return sum(image.nbytes for image in self.images)

    def batches(self, batch_size: int, rows: slice, start: int) -> Generator[Batch, None, None]:
        """Yield the rows of full batches for ever, beginning with batch `start`; each epoch is a new order of all."""
        per_epoch = len(self.epoch_order) // batch_size
        for number in count(start):
            epoch, place = divmod(number, per_epoch)
            if place == 0 or number == start:
                order = self.epoch_order.batches(epoch, batch_size)
            again = None if self.epoch_order.once else place
            yield self._batch(order[place * batch_size : (place + 1) * batch_size][rows], epoch, again)

    def _batch(self, chosen: Tensor, epoch: int, again: int | None) -> Batch:
        indices = chosen.tolist()
        samples = [self.samples[index] for index in indices]
        cache = self.decoder.cache
        # Samples that the cache could not use were left out when the memory was filled.
        found = [] if cache is None else [cache.lookup(sample, epoch) for sample in samples]
        cached = [view for view in found if view is not None]
        if isinstance(self.images, Tensor):
            images = self.images[chosen]
        elif cached:
            boxes = zip(indices, cached, strict=True)
            images = torch.stack([self.decoder.view.cut(self.images[index], view.box) for index, view in boxes])
        else:
            seed = self.epoch_order.seed
            images = torch.stack(
                [self.decoder.view(self.images[index], view_seed(seed, epoch, index, again)) for index in indices]
            )
        return Batch(
            images,
            {name: ids[chosen] for name, ids in self.tokens.items()},
            [self.captions[index] for index in indices],
            [sample.key for sample in samples],
            stack_cached(cached),
        )


def fill(opened: Opened, decoder: Decoder, log: SkippedSamples, *, threads: int) -> MemoryCache:
    """Read and decode the whole source once.

    Raises:
        UserError: too many samples are bad, or too many shards broken.
    """
    bad: list[SkippedSample] = []
    images, captions, samples = [], [], []
    sizes: Counter[int] = Counter()
    for (entry, raw), decoded in _decode_all(_read_all(opened.source, log), decoder, threads):
        if isinstance(decoded, SkippedSample):
            bad.append(decoded)
            continue
        sizes[entry] += 1
        images.append(decoded[0])
        captions.append(decoded[1])
        samples.append(replace(raw, image=None))  # a teacher cache knows samples by key and caption
    log.add(bad, len(samples), complete=True)
    kept = images if decoder.view.random or not images else torch.stack(images)
    weights = opened.epoch_order.weights
    epoch_order = EpochOrder(tuple(sizes[entry] for entry in range(len(weights))), weights, opened.epoch_order.seed)
    return MemoryCache(kept, tokenize(decoder.tokenizers, captions), captions, samples, epoch_order, decoder)


def _read_all(source: IndexedSource | ShardSource, log: SkippedSamples) -> Iterator[Read]:
    entries = [entry for entry, size in enumerate(source.sizes) for _ in range(size)]
    if isinstance(source, ShardSource):
        for number, entry in enumerate(entries):
            # Too many broken shards end the run at once, not after all the others are decoded.
            for raw in source.read([number], lambda broken: log.add([broken], 0)):
                yield entry, raw
    else:
        for index, entry in enumerate(entries):
            yield entry, source[index]


def _decode_all(
    samples: Iterator[Read], decoder: Decoder, threads: int
) -> Iterable[tuple[Read, tuple[Tensor, str] | SkippedSample]]:
    def work(read: Read) -> tuple[Read, tuple[Tensor, str] | SkippedSample]:
        raw = read[1]
        decoded = decode(raw, decoder.max_pixels, decoder.formats)
        if isinstance(decoded, SkippedSample):
            return read, decoded
        if decoder.cache is None:
            return read, (decoder.view.to_keep(decoded[0]), decoded[1])
        if decoder.cache.lookup(raw, 0) is None:
            return read, not_cached(raw)
        # The boxes of a teacher's cache are in pixels of the whole image.
        return read, (decoded[0] if decoder.view.random else decoder.view(decoded[0], 0), decoded[1])

    # Threads, not processes: PIL and torch release the GIL, and the images need no copy.
    with ThreadPoolExecutor(threads) as pool:
        while ahead := list(islice(samples, _READ_AHEAD)):
            yield from pool.map(work, ahead)
