"""Decoded samples on their way from a worker to the training process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from harness.config.data import IMAGE_FORMATS, PILLOW_PIXELS
from harness.data.batch import Batch
from harness.data.decode import decode
from harness.data.samples import RawSample, SkippedSample
from harness.data.tokens import Tokenizers, tokenize
from harness.data.view import View

if TYPE_CHECKING:
    from harness.teachers.cached import CachedTeacher, CachedView


class Cache(Protocol):
    """A teacher cache: what the teacher made of a sample in an epoch, None if it is not in there."""

    def lookup(self, raw: RawSample, epoch: int) -> CachedView | None: ...


@dataclass(frozen=True)
class Chunk:
    """What came of one request for a batch.

    Attributes:
        good: the batch, full; None if it could not be filled.
        bad: the samples and shards met on the way that cannot be used.
        failure: one sentence for the user that ends the run; None if there is a batch.
    """

    good: Batch | None
    bad: list[SkippedSample] = field(default_factory=list)
    failure: str | None = None

    def pin_memory(self) -> Chunk:
        """Return a copy in page-locked memory; the DataLoader calls this."""
        return self if self.good is None else replace(self, good=self.good.pin_memory())


@dataclass(frozen=True)
class Sample:
    """A decoded pair: `image` is its view, uint8 [3, S, S]."""

    image: Tensor
    caption: str
    key: str
    cached: CachedView | None


@dataclass(frozen=True)
class Decoder:
    """Makes samples and batches; it runs in the workers."""

    view: View
    tokenizers: Tokenizers
    max_pixels: int = PILLOW_PIXELS
    cache: Cache | None = None
    formats: Sequence[str] = IMAGE_FORMATS

    def sample(self, raw: RawSample, seed: int, epoch: int) -> Sample | SkippedSample:
        """Decode a sample; its view is cut by the seed, or as the cache's teacher saw it in this epoch."""
        decoded = decode(raw, self.max_pixels, self.formats)
        if isinstance(decoded, SkippedSample):
            return decoded
        image, caption = decoded
        if self.cache is None:
            return Sample(self.view(image, seed), caption, raw.key, None)
        cached = self.cache.lookup(raw, epoch)
        return not_cached(raw) if cached is None else Sample(self.view.cut(image, cached.box), caption, raw.key, cached)

    def batch(self, samples: Sequence[Sample]) -> Batch:
        """Put samples together."""
        captions = [sample.caption for sample in samples]
        return Batch(
            torch.stack([sample.image for sample in samples]),
            tokenize(self.tokenizers, captions),
            captions,
            [sample.key for sample in samples],
            stack_cached([sample.cached for sample in samples if sample.cached is not None]),
        )


def stack_cached(views: list[CachedView]) -> CachedTeacher | None:
    """Put together what a cache knows of a batch's samples; None without a cache."""
    if not views:
        return None
    from harness.teachers.cached import CachedTeacher  # only a run with a cache needs the teachers' code

    return CachedTeacher.stack(views)


def not_cached(raw: RawSample) -> SkippedSample:
    """Return what is wrong with a sample that a teacher cache does not hold."""
    reason = "the teacher cache does not hold it; run `clipkd teacher precompute` again if the data has grown"
    return SkippedSample(raw.key, raw.shard, "not_cached", reason)


def too_few(found: int, batch_size: int) -> str:
    """Return the message for a data set that does not fill a batch."""
    return (
        f"data.train holds {found} usable samples, fewer than one batch of {batch_size}; "
        "lower train.batch_size or add data."
    )
