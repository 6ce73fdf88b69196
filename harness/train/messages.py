"""Messages of a training run: what it consists of, and what it has skipped."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from harness.data import Loader
from harness.data.samples import REMARKS
from harness.models import LoadedModel

if TYPE_CHECKING:
    from harness.train.trainer import Trainer

logger = logging.getLogger(__name__)


def describe_run(trainer: Trainer) -> str:
    """One line that describes the run."""
    recipe, models, world = trainer.recipe, trainer.models, trainer.distributed.world_size
    parts = [f"{role} {_size(model)}" for role, model in models.by_role().items()]
    random = [model.name for model in models.teachers if model.is_random]
    if trainer.cache is not None:
        parts.append("read from the teacher cache")
    elif random:
        parts.append(f"whose weights are RANDOM ({', '.join(random)})")
    if models.teachers and not models.task.live:
        parts.append("which no term reads")
    terms = " + ".join(f"{weight:g} {term}" for term, weight in models.task.loss.weights.items())
    where = f"{trainer.device}" if world == 1 else f"{world} processes ({trainer.parallel}, {trainer.device.type})"
    first = f", resuming at step {trainer.first}" if trainer.first > 1 else ""
    return (
        f"{recipe.name}: {', '.join(parts)}; {terms}; {trainer.loader.describe()}; "
        f"{trainer.steps} steps of {recipe.train.batch_size} on {where}{first}"
    )


def warn_skipped(name: str, loader: Loader, known: int) -> int:
    """Warn of skipped samples if there are more than ``known``: cached data is read before the first step.

    Returns:
        How many there are now.
    """
    skipped = loader.skipped
    if skipped.counts.total() > known:
        for words, remarks in (("skipped broken samples", False), ("remarks on shards", True)):
            counts = {kind: count for kind, count in skipped.counts.most_common() if (kind in REMARKS) == remarks}
            kinds = ", ".join(f"{count} {kind}" for kind, count in counts.items())
            if counts:
                logger.warning("%s: %s (%s), listed in %s", name, words, kinds, skipped.path)
    return skipped.counts.total()


def _size(model: LoadedModel) -> str:
    return f"{model.name} ({model.parameters['total'] / 1e6:.2f} M)"
