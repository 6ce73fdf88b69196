"""Resuming: a run starts from scratch, or from its folder's newest checkpoint if that is of the same recipe."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.checkpoint import checkpoint_path, list_checkpoints
from harness.config import Recipe, parse_recipe
from harness.errors import UserError
from harness.runs import DONE
from harness.train.best import read_best
from harness.train.moved import check_inputs, is_same_unreplaced, roots_of
from harness.train.optimizer_check import check_not_empty
from harness.train.training_state import read_state
from harness.way_on import way_on
from harness.weights.checksums import Damaged

logger = logging.getLogger(__name__)

# A change of these leaves the training what it was, up to rounding; what the data keys among them change in the order
# of samples is the loader's to refuse.
HARMLESS = (
    "name",
    "description",
    "paths.",
    "published",
    "eval.",
    "data.workers",
    "data.max_skip_rate",
    "loss.backend",
    # A cache knows which teacher, views and data it is of.
    "teacher_cache.path",
    "train.accum_freq",
    "train.compile",
    "train.device",
    "train.keep_last",
    "train.log_every",
    "train.max_nonfinite",
    "train.on_nonfinite",
    "train.save_every",
    "train.stall_",
    "train.threads",
)


def find_checkpoint(recipe: Recipe, out: Path, *, resume: bool, overwrite: bool) -> dict[str, Any] | None:
    """Checkpoint to resume from; None to start from scratch. Rank 0 decides: see `load_same_checkpoint`.

    Raises:
        UserError: the folder holds checkpoints and neither ``resume`` nor ``overwrite`` says what to do with them; none
            of them can be read; the recipe has changed in a way that would make another run of it, or what has moved
            is not the same; the optimizer's state is empty; or the record of the best step is damaged.
    """
    found = list_checkpoints(out / "checkpoints")
    if overwrite or not found:
        return None
    if not resume:
        raise UserError(
            f"{out} holds an interrupted run with checkpoints up to {found[-1].name}; add --resume to continue "
            "from there, or --overwrite to lose it and start over"
        )
    state = load_newest(found)
    if check_same_recipe(recipe, parse_recipe(state["recipe"], f"the recipe in {out}"), out):
        check_inputs(recipe, state.get("inputs"), out)
    check_not_empty(state, out / "checkpoints")
    if recipe.eval.best:
        read_best(out / "checkpoints")  # it is needed after hours only, and refused now
    return state


def load_same_checkpoint(out: Path, step: int) -> dict[str, Any]:
    """The checkpoint that rank 0 has chosen, for the other ranks.

    Raises:
        UserError: this rank cannot read it: the run folder has to be the same for all.
    """
    path = checkpoint_path(out / "checkpoints", step)
    try:
        return read_state(path)
    except Exception as error:
        raise UserError(
            f"rank 0 resumes from {path}, which this rank cannot read "
            f"({' '.join(str(error).split())[:200]}); all ranks need the same run folder"
        ) from error


def load_newest(paths: list[Path]) -> dict[str, Any]:
    """Newest checkpoint that can be read; warns of newer ones that cannot, as a broken disk leaves them."""
    reasons = []
    for path in reversed(paths):
        try:
            return read_state(path)
        except Exception as error:  # the reader of pickles fails on garbage in every way there is
            reason = " ".join(str(error.reason if isinstance(error, Damaged) else error).split())[:200]
            reasons.append(reason)
            logger.warning("the checkpoint %s cannot be read (%s); trying the one before", path, reason)
    raise UserError(
        f"none of the checkpoints in {paths[0].parent} can be read; {way_on().restart} (the newest: {reasons[0]})"
    )


def check_same_recipe(recipe: Recipe, saved: Recipe, out: Path) -> bool:
    """Refuse a recipe that would not continue the saved one, naming each difference; log the harmless ones.

    Returns:
        Whether data or weights are elsewhere, so that their content is to be compared.
    """
    changes = list(_changes(saved.model_dump(mode="json"), recipe.model_dump(mode="json")))
    lengths = ("train.steps", "train.epochs") if recipe.schedule.kind == "constant" else ()
    harmless = [change for change in changes if change[0].startswith(HARMLESS) or change[0] in lengths]
    roots = roots_of(saved, recipe)
    moved = [change for change in changes if change not in harmless and is_same_unreplaced(*change[1:], roots)]
    other = [change for change in changes if change not in harmless and change not in moved]
    if other:
        listed = "; ".join(f"{key} was {was!r} and is {now!r}" for key, was, now in other)
        raise UserError(
            f"{out} was started with another recipe: {listed}; resume with the recipe in {out / 'recipe.yaml'}, or "
            "choose another --out for the new one"
        )
    for key, was, now in harmless:
        logger.info("resuming with %s changed from %r to %r", key, was, now)
    for key, was, now in moved:
        logger.info("resuming with %s moved from %r to %r", key, was, now)
    return bool(moved)


def check_world_size(state: dict[str, Any], world_size: int, parallel: str) -> None:
    """Log a change of the number of processes; the loader refuses it where the data does not allow it.

    Raises:
        UserError: the optimizer's state has another form there.
    """
    parallel = parallel if world_size > 1 else "ddp"
    if state["parallel"] != parallel:
        raise UserError(
            f"the run was saved by {state['world_size']} processes with {state['parallel']} and would go on with "
            f"{parallel} on {world_size} (one process never shards); resume it as it was"
        )
    if state["world_size"] != world_size:
        logger.info(
            "resuming on %d processes what ran on %d: the batches stay the same, dropout and masks are drawn again",
            world_size,
            state["world_size"],
        )


def is_finished(out: Path) -> bool:
    """Whether the run in this folder has come to its end."""
    return (out / DONE).exists()


def _changes(was: Any, now: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(was, dict) and isinstance(now, dict) and not key.endswith(".config"):
        for name in {**was, **now}:
            yield from _changes(was.get(name), now.get(name), f"{key}.{name}" if key else name)
    elif was != now:
        yield key, was, now
