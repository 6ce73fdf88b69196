"""The training data of one rank, tokenized for all of its models that read captions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from harness.data import Loader, build_loader

if TYPE_CHECKING:
    from harness.train.trainer import Trainer


def open_loader(trainer: Trainer, start: dict[str, Any] | None) -> Loader:
    """Open a recipe's training pairs where the run stands.

    Args:
        trainer: with its models and teacher cache.
        start: the checkpoint to resume from, or None.
    """
    recipe, models, distributed = trainer.recipe, trainer.models, trainer.distributed
    states = start["ranks"] if start else None
    # Cached teachers read no captions.
    tokenizers: dict[str, Callable[[list[str]], Any]] = {
        role: model.tokenizer
        for role, model in models.by_role(live=True).items()
        if not trainer.cache or role == "student"
    }
    return build_loader(
        recipe.data,
        batch_size=trainer.batch_size,
        seed=recipe.seed,
        image_size=recipe.data.image_size or max(model.image_size for model in models.by_role().values()),
        tokenizers=tokenizers,
        cache=trainer.cache,
        skipped_samples=trainer.out / "skipped_samples.jsonl",
        rank=distributed.rank,
        world_size=distributed.world_size,
        state=states[min(distributed.rank, len(states) - 1)]["loader"] if states else None,
        pin_memory=trainer.device.type == "cuda",
    )
