"""The training data of a run, as endless full batches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.config import DataConfig
from harness.data.batch import Batch
from harness.data.chunks import Cache, Decoder, too_few
from harness.data.entries import listed
from harness.data.feeds import IndexedFeed, MemoryFeed, ShardFeed, Share, Workers
from harness.data.grouping import IMAGE_ENDINGS
from harness.data.memory_cache import fill
from harness.data.position import Setting, check_place, setting_of
from harness.data.samples import SkippedSample
from harness.data.shards import ShardSource
from harness.data.skipped import SkippedSamples
from harness.data.sources import Opened, open_train
from harness.data.tokens import Tokenizers, leaders
from harness.data.view import View
from harness.errors import UserError

Feed = MemoryFeed | IndexedFeed | ShardFeed


class Loader(Iterator[Batch]):
    """An endless iterator over full, shuffled batches.

    Attributes:
        num_samples: the number of pairs in an epoch; None for a stream of shards, which is not counted.
        skipped: the samples skipped so far, by kind in `skipped.counts`.
    """

    def __init__(self, feed: Feed, setting: Setting, names: dict[str, str], skipped: SkippedSamples, rank: int) -> None:
        self._feed, self._setting, self._names, self._rank = feed, setting, names, rank
        self.num_samples = feed.num_samples
        self.skipped = skipped

    def __next__(self) -> Batch:
        return next(self._feed).renamed(self._names)

    def state_dict(self) -> dict[str, Any]:
        """Return the position after the last batch handed out, in plain numbers, texts, lists and dicts."""
        return {
            "setting": self._setting.as_dict(),
            "position": self._feed.position(),
            "rank": self._rank,
            "skipped": self.skipped.state_dict(),
        }

    def describe(self) -> str:
        """Return one line on what is loaded and how."""
        return self._feed.about

    def lost_worker(self, error: Exception) -> UserError | None:
        """The error for a worker process that has died, None where another is the reason for ``error``."""
        return self._feed.lost_worker(error)

    def close(self) -> None:
        """Stop the worker processes; no batch can be had afterwards."""
        self._feed.close()


def build_loader(
    cfg: DataConfig,
    *,
    batch_size: int,
    seed: int,
    image_size: int,
    tokenizers: Tokenizers,
    skipped_samples: Path | None,
    rank: int = 0,
    world_size: int = 1,
    state: dict[str, Any] | None = None,
    cache: Cache | None = None,
    pin_memory: bool = False,
) -> Loader:
    """Open the training pairs of a recipe.

    The batches depend on the data and the arguments alone; on `cfg.workers` only for shards that are not cached.
    Batch k of the process of rank r is rows r * batch_size and following of batch k over all processes, which for CSV,
    synthetic and cached data is the batch that one process would get.

    Args:
        cfg: the recipe's section `data`; its `augment` is left to BatchAugment.
        batch_size: number of pairs in every batch of this process.
        seed: decides on order and crops.
        image_size: side of the images in pixels.
        tokenizers: from a list of captions to int64 [B, L], by name.
        skipped_samples: the file that they are appended to, None for none; other ranks than 0 write beside it.
        rank: the number of this process.
        world_size: how many processes there are.
        state: the `state_dict` of the loader of a run that goes on; the batches go on as if it had not stopped.
        cache: a teacher cache, whose views are repeated.
        pin_memory: whether batches are put into page-locked memory, for a GPU.

    Raises:
        UserError: data is missing, broken beyond `cfg.max_skip_rate`, or less than a batch, or the state belongs to
            batches in another order.
    """
    opened = open_train(cfg, image_size=image_size, seed=seed)
    share, workers = Share(batch_size, rank, world_size), Workers(cfg.workers, pin_memory)
    setting = setting_of(cfg, opened, share)
    if state is not None:
        setting.check(state["setting"])
    _check_size(opened, share.global_batch)
    num_shards = 0
    if isinstance(opened.source, ShardSource):
        num_shards = len(opened.source.shards)
        opened.source.pairs()  # which reading is then compared to
    log = SkippedSamples(_beside(skipped_samples, rank), cfg.max_skip_rate, num_shards)
    if state is not None and state["rank"] == rank:
        log.load_state_dict(state["skipped"])
    names = leaders(tokenizers)
    view = View(image_size, cfg.crop, cfg.crop_scale)
    leading = {name: tokenizers[name] for name in names.values()}
    decoder = Decoder(view, leading, cfg.max_image_pixels, cache, cfg.image_formats)
    position = None if state is None else state["position"]
    if state is not None:
        shards = isinstance(opened.source, ShardSource)
        check_place(position, in_memory=cfg.cache == "memory", shards=shards)
    feed = _feed(cfg, opened, decoder, share, workers, log, position)
    return Loader(feed, setting, names, log, rank)


def _feed(
    cfg: DataConfig,
    opened: Opened,
    decoder: Decoder,
    share: Share,
    workers: Workers,
    log: SkippedSamples,
    position: Any,
) -> Feed:
    if cfg.cache == "memory":
        memory = fill(opened, decoder, log, threads=max(1, cfg.workers))
        return MemoryFeed(memory, share, workers.pin_memory, opened.about, position)
    kind = ShardFeed if isinstance(opened.source, ShardSource) else IndexedFeed
    return kind(opened, decoder, share, workers, log, position)


def _beside(skipped_samples: Path | None, rank: int) -> Path | None:
    """Return the file of a rank: each process has one of its own."""
    if skipped_samples is None or rank == 0:
        return skipped_samples
    return skipped_samples.with_name(f"{skipped_samples.stem}.rank{rank}{skipped_samples.suffix}")


def _check_size(opened: Opened, batch_size: int) -> None:
    """Refuse less than a batch; how much remote shards hold is known only after reading them."""
    source = opened.source
    if not isinstance(source, ShardSource):
        if len(source) < batch_size:
            raise UserError(too_few(len(source), batch_size))
        return
    if source.is_remote:
        return
    broken: list[SkippedSample] = []
    found = source.count(batch_size, broken.append)
    if found == 0 and not broken:
        raise UserError(_no_image(source))
    if found < batch_size:
        raise UserError(too_few(found, batch_size) + (_and_broken(broken) if broken else ""))


def _and_broken(broken: list[SkippedSample]) -> str:
    return f" {len(broken)} of its shards are broken, the first is {broken[0].shard} ({broken[0].reason})."


def _no_image(source: ShardSource) -> str:
    return (
        f"data.train: {listed(source.shards)} {'is' if len(source.shards) == 1 else 'are'} empty, without any image (a "
        f"member ending in {', '.join(IMAGE_ENDINGS)}){_but(source.endings())}; build the data again or list other "
        "shards."
    )


def _but(endings: list[str]) -> str:
    if not endings:
        return ""
    dots = ", as a key ends at its first dot" if any("." in ending for ending in endings) else ""
    return f", but with members ending in {listed(endings)}{dots}"
