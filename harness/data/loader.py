"""The training data of a run, as endless full batches."""

from collections.abc import Iterator
from pathlib import Path

from harness.config import DataConfig
from harness.data.bad import BadSampleLog
from harness.data.batch import Batch
from harness.data.chunks import Decoder, full_batches, too_few
from harness.data.memory import fill
from harness.data.shards import IMAGE_ENDINGS, ShardSource
from harness.data.sources import IndexedSource, describe, open_source
from harness.data.streaming import stream
from harness.data.tokens import Tokenizers
from harness.data.view import View
from harness.errors import UserError


class Loader(Iterator[Batch]):
    """An endless iterator over full, shuffled batches.

    Attributes:
        num_samples: the number of pairs in one pass; None for a stream of shards, which is not counted.
        bad: the samples skipped so far, by kind in `bad.counts`.
    """

    def __init__(self, batches: Iterator[Batch], num_samples: int | None, bad: BadSampleLog, description: str) -> None:
        self._batches = batches
        self._description = description
        self.num_samples = num_samples
        self.bad = bad

    def __next__(self) -> Batch:
        return next(self._batches)

    def describe(self) -> str:
        """Return one line on what is loaded and how."""
        return self._description


def build_loader(
    cfg: DataConfig,
    *,
    batch_size: int,
    seed: int,
    image_size: int,
    tokenizers: Tokenizers,
    bad_samples: Path | None,
    start: int = 0,
) -> Loader:
    """Open the training pairs of a recipe.

    The batches depend on the data and the arguments alone; on `cfg.workers` only for shards that are not cached.

    Args:
        cfg: the recipe's section `data`; its `augment` is left to BatchAugment.
        batch_size: number of pairs in every batch.
        seed: decides on order and crops.
        image_size: side of the images in pixels.
        tokenizers: from a list of captions to int64 [B, L], by name.
        bad_samples: the file that skipped samples are appended to, None for none.
        start: number of batches already consumed, when a run is resumed. Cached data goes on exactly as if it had not
            stopped, and so do CSV and synthetic data without bad samples; a stream of shards gets a new order.

    Raises:
        UserError: data is missing, broken beyond `cfg.max_bad_rate`, in a broken shard, or less than a batch.
    """
    source = open_source(cfg, image_size=image_size, seed=seed)
    _check_size(source, cfg, batch_size)
    log = BadSampleLog(bad_samples, cfg.max_bad_rate)
    view = View(image_size, cfg.crop, cfg.crop_scale)
    name = describe(cfg.train)
    if cfg.cache == "memory":
        memory = fill(source, view, tokenizers, log, threads=max(1, cfg.workers))
        if len(memory) < batch_size:
            raise UserError(too_few(len(memory), batch_size))
        about = f"{len(memory)} pairs from {name}, {memory.num_bytes / 2**20:.0f} MiB in memory"
        return Loader(memory.batches(batch_size, seed, start), len(memory), log, about)
    chunks = stream(
        source, Decoder(view, tokenizers), batch_size=batch_size, seed=seed, start=start, workers=cfg.workers
    )
    if isinstance(source, ShardSource):
        count, about = None, f"a stream of {len(source.shards)} shards from {name}"
    else:
        count, about = len(source), f"{len(source)} pairs from {name}, decoded as they are needed"
    return Loader(full_batches(chunks, batch_size, log), count, log, about)


def _check_size(source: IndexedSource | ShardSource, cfg: DataConfig, batch_size: int) -> None:
    found = source.count(batch_size) if isinstance(source, ShardSource) else len(source)
    if found == 0 and isinstance(source, ShardSource):
        raise UserError(_no_image(source))
    if found < batch_size:
        raise UserError(too_few(found, batch_size))
    if isinstance(source, ShardSource) and cfg.cache == "none" and cfg.workers > len(source.shards):
        raise UserError(
            f"data.workers is {cfg.workers} but data.train has {len(source.shards)} shards, and each worker reads "
            f"shards of its own; set data.workers to at most {len(source.shards)}, or data.cache to memory."
        )


def _no_image(source: ShardSource) -> str:
    shards = describe([str(shard) for shard in source.shards])
    return (
        f"data.train: {shards} {'is' if len(source.shards) == 1 else 'are'} empty, without any image (a member ending "
        f"in {', '.join(IMAGE_ENDINGS)}); build the data again or list other shards."
    )
