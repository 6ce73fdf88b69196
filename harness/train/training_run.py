"""Training run: one recipe in, one run folder out."""

from __future__ import annotations

import warnings
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from harness.config import Recipe
from harness.errors import Terminated, UserError
from harness.evaluate.cached import evaluate_cached
from harness.evaluate.find_sets import find_recipe_sets
from harness.evaluate.layout import inspect_layout
from harness.evaluate.result_store import EvalResultStore
from harness.export import export_model
from harness.files import write_json, write_text
from harness.models import LoadedModel, create_student
from harness.records.reading import read_values
from harness.records.run_folder import RunSummary
from harness.runs import DONE, lock_run_folder, prepare_run, record_resume, run_in_place
from harness.train.best import read_best
from harness.train.distributed import DistributedContext, init_distributed
from harness.train.failures import remove_tracebacks, told_in_a_sentence
from harness.train.parallel import student_state
from harness.train.periodic_evaluation import warn_missing
from harness.train.resume import check_world_size, find_checkpoint, is_finished, load_same_checkpoint
from harness.train.signals import exit_on_sigterm
from harness.train.trainer import Trainer
from harness.way_on import WayOn, going_on, way_on

# Left by a run that SIGTERM or SIGHUP has ended, for schedulers that start it again.
STOPPED = "stopped"


def train(
    recipe: Recipe, out: Path, *, command: str | None = None, resume: bool = False, overwrite: bool = False
) -> dict[str, Any]:
    """Train the recipe's student, export it, evaluate it, and write everything into ``out``.

    Under torchrun every process calls this; rank 0 writes.

    Args:
        recipe: what to run.
        out: the run folder.
        command: what the user typed, for the record; this process's command line by default.
        resume: continue from the newest checkpoint in ``out``, or start if there is none; a finished run is left alone.
        overwrite: start over, whatever an interrupted run has left in ``out``.

    Returns:
        The content of ``out/summary.json``: name, steps, seconds, images_per_second, parameters, metrics by set.

    Raises:
        UserError: for anything the user can fix.
        Terminated: SIGTERM or SIGHUP came; the run is saved and can be resumed.
    """
    order = _Order(recipe, out, command, resume=resume, overwrite=overwrite)
    with ExitStack() as lock, going_on(order.way_on()):
        return _train(order, lock)


@dataclass(frozen=True)
class _Order:
    """What `train` was called with."""

    recipe: Recipe
    out: Path
    command: str | None
    resume: bool
    overwrite: bool

    def way_on(self) -> WayOn:
        """How `clipkd train` goes on after this call of it."""
        if self.overwrite:
            return WayOn(
                resume="run the same command again with --resume in the place of --overwrite",
                restart="run the same command again",
                skip_nonfinite="run the same command again with --resume --set train.on_nonfinite=skip in the place of "
                "--overwrite",
            )
        if self.resume:
            return WayOn(
                resume="run the same command again",
                restart="start over with --overwrite in the place of --resume",
                skip_nonfinite="run the same command again with --set train.on_nonfinite=skip",
            )
        return WayOn()


def _train(order: _Order, lock: ExitStack) -> dict[str, Any]:
    recipe, out = order.recipe, order.out
    with init_distributed(recipe.train.device) as (distributed, device):
        done, start = _start(order, distributed, device, lock)
        if done:
            return _read_summary(out) if distributed.is_rank_zero else {}
        with told_in_a_sentence(out, distributed, lambda: "before the first step"):
            trainer = Trainer(recipe, out, device, distributed, start)
            with run_in_place(out) if distributed.is_rank_zero else nullcontext():
                finished = trainer.run()
        if not finished:
            if distributed.is_rank_zero:
                _write_stopped(out)
            # The first to leave has torchrun end the others.
            distributed.broadcast_object(None)
            raise Terminated(_stopped(out))
        weights = student_state(trainer.task, trainer.parallel)
    if not distributed.is_rank_zero:
        return {}
    # The other ranks are done: none waits for rank 0 any longer.
    position = "in the export or evaluation after the last step"
    with exit_on_sigterm(_stopped(out)), told_in_a_sentence(out, distributed, lambda: position):
        try:
            return _finish(trainer, weights)
        except Terminated:
            _write_stopped(out)
            raise


def _read_summary(out: Path) -> dict[str, Any]:
    way = f"delete it, and {way_on().resume}: it is made again from the last checkpoint"
    return read_values(out / DONE, RunSummary, way)


def _stopped(out: Path) -> str:
    return f"stopped by SIGTERM or SIGHUP and saved in {out}; to go on, {way_on().resume}"


def _write_stopped(out: Path) -> None:
    write_text(out / STOPPED, f"SIGTERM or SIGHUP came; to go on, {way_on().resume}\n")


def _start(
    order: _Order, distributed: DistributedContext, device: torch.device, lock: ExitStack
) -> tuple[bool, dict[str, Any] | None]:
    """Check what can be checked before hours of training, and make the run folder, which rank 0 then holds.

    Returns:
        Whether the run is finished already, and the checkpoint to resume from. Rank 0 decides for all.
    """
    _set_up_torch(order.recipe)
    problem, start, done = None, None, False
    if distributed.is_rank_zero:
        try:
            done = order.resume and is_finished(order.out)
            start = None if done else _prepare(order, distributed, device, lock)
        except Exception as error:  # of whatever kind: the other ranks wait for a word
            problem = error
    decided = None if problem is None else str(problem), done, None if start is None else start["step"]
    refused, done, step = distributed.broadcast_object(decided)
    if problem is not None or refused:
        raise problem or UserError(f"{distributed} stops because rank 0 cannot begin: {refused}")
    if step is not None and not distributed.is_rank_zero:
        start = load_same_checkpoint(order.out, step)
    return done, start


def _prepare(
    order: _Order, distributed: DistributedContext, device: torch.device, lock: ExitStack
) -> dict[str, Any] | None:
    recipe, out = order.recipe, order.out
    for item in find_recipe_sets(recipe.eval).sets:
        if item.synthetic is None:
            inspect_layout(item)
    lock.enter_context(lock_run_folder(out))
    start = find_checkpoint(recipe, out, resume=order.resume, overwrite=order.overwrite)
    if start is None:
        prepare_run(recipe, out, order.command, device)
    else:
        check_world_size(start, distributed.world_size, recipe.train.parallel)
        record_resume(recipe, out, start["step"], order.command, device)
    (out / STOPPED).unlink(missing_ok=True)
    remove_tracebacks(out)
    return start


def _finish(trainer: Trainer, weights: dict[str, Any]) -> dict[str, Any]:
    """Export, evaluate and sum up."""
    recipe, out = trainer.recipe, trainer.out
    student = trainer.models.student
    if trainer.parallel == "fsdp2":
        student = create_student(recipe, pretrained_towers=False)
        student.model.load_state_dict(weights)
        student.model.to(trainer.device)
    seconds = trainer.metrics.seconds
    with run_in_place(out):
        export_model(student, out / "export", metadata={"recipe": recipe.name, "steps": trainer.steps})
        warn_missing(trainer)
        metrics = _evaluate(student, recipe, out, trainer.device)
    summary = {
        "name": recipe.name,
        "model": student.name,
        "parameters": student.parameters,
        "steps": trainer.steps,
        "seconds": round(seconds, 2),
        "images_per_second": round(trainer.steps * recipe.train.batch_size / seconds, 1),
        "processes": trainer.distributed.world_size,
        "skipped_samples": dict(trainer.loader.skipped.counts),
        "nonfinite_steps": trainer.nonfinite.count,
        "metrics": metrics,
        **({"best": read_best(out / "checkpoints")} if recipe.eval.best else {}),
    }
    write_json(out / DONE, summary)
    return summary


def _evaluate(student: LoadedModel, recipe: Recipe, out: Path, device: torch.device) -> dict[str, dict[str, float]]:
    try:
        sets, config = find_recipe_sets(recipe.eval).sets, recipe.eval
        store = EvalResultStore(out / "eval", student.name)
        return evaluate_cached(
            student, sets, store, batch_size=config.batch_size, workers=config.workers, device=device
        )
    except UserError as error:
        way_on = f"the trained model is safe in {out / 'export'}: fix the set and run `clipkd eval {out}`"
        raise UserError(f"{error}; {way_on}") from error


def _set_up_torch(recipe: Recipe) -> None:
    if recipe.train.threads:
        torch.set_num_threads(recipe.train.threads)
    torch.set_flush_denormal(recipe.train.flush_denormal)
    torch.backends.cudnn.benchmark = True  # all batches of a run have one shape
    # In fp16 the scaler skips the first steps, as it should; torch then suspects the wrong order of calls.
    warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step", category=UserWarning)
