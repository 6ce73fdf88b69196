"""Decoded samples on their way from a worker to the training process."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch

from harness.data.bad import BadSampleLog
from harness.data.batch import Batch
from harness.data.decode import decode
from harness.data.samples import BadSample, RawSample
from harness.data.tokens import Tokenizers, tokenize
from harness.data.view import View
from harness.errors import UserError


@dataclass(frozen=True)
class Chunk:
    """What came of reading some samples: the good ones (None if there is none) and the bad ones, in pass `epoch`."""

    good: Batch | None
    bad: list[BadSample]
    epoch: int


@dataclass(frozen=True)
class Decoder:
    """Makes a chunk of raw samples; it runs in the workers."""

    view: View
    tokenizers: Tokenizers

    def chunk(self, samples: Iterable[tuple[RawSample, int]], epoch: int, bad: Iterable[BadSample] = ()) -> Chunk:
        """Decode samples that each come with the seed of their view."""
        problems = list(bad)
        images, captions, keys = [], [], []
        for raw, seed in samples:
            decoded = decode(raw)
            if isinstance(decoded, BadSample):
                problems.append(decoded)
                continue
            images.append(self.view(decoded[0], seed))
            captions.append(decoded[1])
            keys.append(raw.key)
        good = Batch(torch.stack(images), tokenize(self.tokenizers, captions), captions, keys) if keys else None
        return Chunk(good, problems, epoch)


def full_batches(chunks: Iterable[Chunk], batch_size: int, log: BadSampleLog) -> Iterator[Batch]:
    """Join chunks into batches of exactly `batch_size`.

    What is left at the end of a pass is dropped: joined to the next pass it could put a pair twice into one batch.
    """
    rest: Batch | None = None
    epoch, num_batches = None, 0
    for chunk in chunks:
        if epoch is not None and chunk.epoch != epoch:
            log.add([], 0, complete=True)
            if num_batches == 0:
                raise UserError(too_few(len(rest) if rest else 0, batch_size))
            rest, num_batches = None, 0
        epoch = chunk.epoch
        log.add(chunk.bad, len(chunk.good) if chunk.good else 0)
        rest = _join(rest, chunk.good)
        while rest is not None and len(rest) >= batch_size:
            batch, rest = _cut(rest, batch_size)
            num_batches += 1
            yield batch


def too_few(found: int, batch_size: int) -> str:
    """Return the message for a data set that does not fill a batch."""
    return (
        f"data.train holds {found} usable samples, fewer than one batch of {batch_size}; "
        "lower train.batch_size or add data."
    )


def _join(first: Batch | None, second: Batch | None) -> Batch | None:
    if first is None or second is None:
        return first or second
    return Batch(
        torch.cat([first.images, second.images]),
        {name: torch.cat([ids, second.tokens[name]]) for name, ids in first.tokens.items()},
        first.captions + second.captions,
        first.keys + second.keys,
    )


def _cut(batch: Batch, size: int) -> tuple[Batch, Batch | None]:
    """Split off the first `size` pairs."""
    if len(batch) == size:
        return batch, None
    return _part(batch, slice(None, size)), _part(batch, slice(size, None))


def _part(batch: Batch, part: slice) -> Batch:
    tokens = {name: ids[part] for name, ids in batch.tokens.items()}
    return Batch(batch.images[part], tokens, batch.captions[part], batch.keys[part])
