"""Contents of a loader's state besides the position, and whether a run may resume from it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from harness.config import DataConfig
from harness.data.feeds import Share
from harness.data.shards import ShardSource
from harness.data.sources import Opened
from harness.errors import UserError
from harness.way_on import way_on

# What is compared, and how it is called in the sentence to the user.
_NAMES = {
    "cache": "data.cache",
    "epoch_order": "the number of samples or shards in an epoch",
    "seed": "seed",
    "global_batch": "train.batch_size",
    "world_size": "the number of processes",
    "rank": "the rank",
    "workers": "data.workers",
}


@dataclass(frozen=True)
class Setting:
    """What the order of the batches depends on.

    Attributes:
        cache: data.cache.
        data: the source's fingerprint.
        epoch_order: how many samples or shards an epoch has, and their weights, as a text.
        seed: of order and crops.
        global_batch: pairs in a batch of all processes.
        world_size: the number of processes; of shards only, as the following.
        rank: of this process.
        workers: the number of worker processes of each.
    """

    cache: str
    data: str
    epoch_order: str
    seed: int
    global_batch: int
    world_size: int | None = None
    rank: int | None = None
    workers: int | None = None

    def as_dict(self) -> dict[str, int | str | None]:
        """Return it in plain numbers and texts."""
        return asdict(self)

    def check(self, saved: Mapping[str, Any]) -> None:
        """Refuse a state of a run whose batches came in another order.

        Raises:
            UserError: naming all that differs.
        """
        differences = [
            "data.train holds other samples or shards"
            if key == "data"
            else f"{_NAMES[key]} was {saved.get(key)} and is {value}"
            for key, value in self.as_dict().items()
            if saved.get(key) != value
        ]
        if differences:
            raise UserError(
                "the run cannot go on in the same data order, because something has changed since its checkpoint: "
                f"{'; '.join(differences)}; set it back, or start a new run."
            )


def setting_of(cfg: DataConfig, opened: Opened, share: Share) -> Setting:
    """Return what the order of the batches of this process depends on."""
    epoch_order = opened.epoch_order
    weights = "" if epoch_order.once else f" by weights {', '.join(f'{weight:g}' for weight in epoch_order.weights)}"
    always = (opened.source.fingerprint(), f"{len(epoch_order)}{weights}", epoch_order.seed, share.global_batch)
    if cfg.cache == "memory" or not isinstance(opened.source, ShardSource):
        return Setting(cfg.cache, *always)
    return Setting(cfg.cache, *always, share.world_size, share.rank, cfg.workers)


def check_place(position: Any, *, in_memory: bool, shards: bool) -> None:
    """Refuse a place that this kind of data never gave.

    Raises:
        UserError: the checkpoint holds something else.
    """
    if in_memory:
        fits = isinstance(position, dict) and all(_is_count(position.get(key)) for key in ("usable", "batches"))
    else:
        fits = isinstance(position, dict) if shards else _is_count(position)
    if not fits:
        raise UserError(
            f"the checkpoint's place in the data is not one of such data ({str(position)[:60]}); resume from another "
            f"checkpoint, or {way_on().restart}."
        )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
