"""Training state: all that a run needs to resume exactly, as one dict of plain values and tensors."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy
import torch

from harness.config import dump_recipe
from harness.errors import UserError
from harness.train.optimizer_check import check_restored
from harness.train.parallel import (
    load_optimizer_state,
    load_student_state,
    optimizer_state,
    student_state,
)
from harness.way_on import way_on

if TYPE_CHECKING:
    from harness.train.trainer import Trainer


def capture_state(trainer: Trainer, step: int) -> dict[str, Any] | None:
    """The state after ``step``: on rank 0 all of it, on others None, though every rank must call it.

    The teacher is never part of it.
    """
    kind = trainer.parallel
    task = trainer.task
    student, optimizer = student_state(task, kind), optimizer_state(task, kind, trainer.optimizer)
    ranks = trainer.distributed.gather_object({**_random_state(trainer), "loader": trainer.loader.state_dict()})
    if not trainer.distributed.is_rank_zero:
        return None
    return {
        "step": step,
        "name": trainer.recipe.name,
        "recipe": dump_recipe(trainer.recipe),
        "inputs": trainer.inputs,
        "world_size": trainer.distributed.world_size,
        "parallel": kind,
        "state_dict": student,
        "loss": task.loss.state_dict(),
        "optimizer": optimizer,
        "schedule": trainer.schedule.state_dict(),
        "scaler": trainer.scaler.state_dict(),
        "interval": trainer.metrics.state_dict(),
        "nonfinite": trainer.nonfinite.count,
        "ranks": ranks,
    }


def restore_state(trainer: Trainer, state: dict[str, Any]) -> None:
    """Load everything but the loader's state, which the loader is built with."""
    task, kind = trainer.task, trainer.parallel
    try:
        for group in state["optimizer"]["param_groups"]:
            # A checkpoint may come from another device, where this was otherwise.
            group["fused"] = trainer.optimizer.defaults["fused"]
        load_student_state(task, kind, state["state_dict"])
        task.loss.load_state_dict(state["loss"])
        load_optimizer_state(task, kind, trainer.optimizer, state["optimizer"])
        check_restored(trainer.optimizer, task.trainable())
        _restore_progress(trainer, state)
    except (RuntimeError, LookupError, ValueError, TypeError, AttributeError) as error:
        missing = "it lacks " if isinstance(error, KeyError) else ""
        reason = missing + " ".join(str(error).split())[:300]
        raise UserError(
            f"the checkpoint of step {state['step']} does not fit the recipe's models and loss ({reason}); resume it "
            f"with the software that wrote it, or {way_on().restart}"
        ) from error


def _restore_progress(trainer: Trainer, state: dict[str, Any]) -> None:
    trainer.schedule.load_state_dict(state["schedule"])
    trainer.scaler.load_state_dict(state["scaler"])
    trainer.metrics.load_state_dict(state["interval"], trainer.device)
    trainer.nonfinite.count = state["nonfinite"]
    rank = trainer.distributed.rank
    if rank < len(state["ranks"]):
        _set_random_state(trainer, state["ranks"][rank])


def _random_state(trainer: Trainer) -> dict[str, Any]:
    kind, keys, *rest = numpy.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(trainer.device) if trainer.device.type == "cuda" else None,
        "own": trainer.generator.get_state(),
        "python": random.getstate(),
        "numpy": [kind, numpy.asarray(keys).tolist(), *rest],
    }


def _set_random_state(trainer: Trainer, state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    if (state["cuda"] is not None) == (trainer.device.type == "cuda"):
        trainer.generator.set_state(state["own"])  # each kind of device has generators of its own
    random.setstate(state["python"])
    numpy.random.set_state(tuple(state["numpy"]))
    if state["cuda"] is not None and trainer.device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], trainer.device)
