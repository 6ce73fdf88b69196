"""Number of steps of a run, and the local batch size of each rank."""

from __future__ import annotations

from harness.config import Recipe
from harness.errors import UserError


def local_batch_size(recipe: Recipe, world_size: int) -> int:
    """Local batch size: pairs of a step that each rank takes.

    Raises:
        UserError: the processes cannot share equally.
    """
    train = recipe.train
    if train.batch_size % (world_size * train.accum_freq):
        raise UserError(
            f"train.batch_size is {train.batch_size}, which {world_size} processes with train.accum_freq "
            f"{train.accum_freq} cannot share equally; make it a multiple of {world_size * train.accum_freq}"
        )
    return train.batch_size // world_size


def total_steps(recipe: Recipe, num_samples: int | None) -> int:
    """Number of optimizer steps of the whole run.

    Raises:
        UserError: ``train.epochs`` of a number of samples that nobody knows; or fewer steps than the warm-up has.
    """
    steps = recipe.train.steps or _steps_of_epochs(recipe, num_samples)
    check_warmup(recipe, steps)
    return steps


def check_warmup(recipe: Recipe, steps: int) -> None:
    """Refuse a warm-up that is longer than the run.

    Raises:
        UserError: it is.
    """
    if recipe.schedule.warmup_steps > steps:
        raise UserError(
            f"schedule.warmup_steps is {recipe.schedule.warmup_steps}, but train.epochs makes {steps} "
            "steps: the learning rate would never reach its peak; lower it or train longer"
        )


def _steps_of_epochs(recipe: Recipe, num_samples: int | None) -> int:
    epochs = recipe.train.epochs
    assert epochs is not None, "a recipe has either steps or epochs"
    if num_samples is None:
        raise UserError(
            "train.epochs needs to know how many samples there are, which shards without a sizes.json or "
            "img2dataset's NNNNN_stats.json beside them do not say; give train.steps instead (samples x epochs / "
            "batch_size)"
        )
    return max(1, epochs * num_samples // recipe.train.batch_size)
