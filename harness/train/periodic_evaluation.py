"""Periodic evaluation: rank 0 evaluates the student while the other ranks wait, without a trace in the training."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy
import torch

from harness.config import EvalSet
from harness.errors import UserError
from harness.evaluate import evaluate
from harness.evaluate.cached import format_metrics
from harness.evaluate.find_sets import find_recipe_sets
from harness.metrics import MetricsWriter, read_metrics
from harness.models import LoadedModel, create_student
from harness.train.best import BestCheckpoint
from harness.train.parallel import student_state
from harness.watchdog import Watchdog

if TYPE_CHECKING:
    from harness.train.trainer import Trainer

logger = logging.getLogger(__name__)

# What rank 0 sends to the ranks that wait.
_GOING, _DONE, _STOPPED = "going", "done", "stopped"
_SIGN_OF_LIFE_SECONDS = 15.0  # well within the half hour after which a collective operation times out


class _AskedToStopError(Exception):
    """SIGTERM came while a set was measured."""


class PeriodicEvaluation:
    """Evaluates the student every ``eval.every`` steps and after the last, one line of metrics.jsonl each.

    It comes after the step's checkpoint, so that a run which is killed meanwhile loses nothing: resumed there, it
    evaluates before it continues.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer, self._config = trainer, trainer.recipe.eval
        self._plain: LoadedModel | None = None

    @cached_property
    def _sets(self) -> list[EvalSet]:
        # Found when they are needed: whoever takes steps without measuring, as the benchmark does, needs none.
        online = self._config.online
        return [item for item in find_recipe_sets(self._config).sets if not online or item.name in online]

    @cached_property
    def _best(self) -> BestCheckpoint | None:
        return BestCheckpoint(self._trainer.out / "checkpoints", self._trainer.recipe) if self._config.best else None

    def is_due(self, step: int) -> bool:
        """Whether the student is measured after this step."""
        every = self._config.every
        return every is not None and step > 0 and (step % every == 0 or step == self._trainer.steps)

    def run_missed(self, writer: MetricsWriter | None, watchdog: Watchdog, asked: Callable[[], bool]) -> bool:
        """Run the evaluation that a resumed run was killed before; False when SIGTERM came meanwhile."""
        step = self._trainer.first - 1
        if not self.is_due(step):
            return True
        is_done = writer is not None and any(
            line["step"] == step and "eval" in line for line in read_metrics(self._trainer.out / "metrics.jsonl")
        )
        return self._trainer.distributed.broadcast_object(is_done) or self.run(step, writer, watchdog, asked)

    def run(self, step: int, writer: MetricsWriter | None, watchdog: Watchdog, asked: Callable[[], bool]) -> bool:
        """Evaluate the student; False when SIGTERM came meanwhile, which then leaves no results.

        Every rank calls this.

        Args:
            step: steps taken.
            writer: takes the line; None on other ranks than 0.
            watchdog: learns of each batch.
            asked: whether SIGTERM has come.

        Raises:
            UserError: a set cannot be read.
        """
        trainer, start = self._trainer, time.perf_counter()
        watchdog.phase("evaluation", step)
        weights = student_state(trainer.task, trainer.parallel)
        finished = (
            self._wait_for_rank_zero(step, watchdog)
            if writer is None
            else self._run_on_rank_zero(step, weights, writer, watchdog, asked)
        )
        trainer.metrics.exclude(time.perf_counter() - start)
        return finished

    def _run_on_rank_zero(self, step: int, weights: dict[str, Any], writer: MetricsWriter, *rest: Any) -> bool:
        """Evaluate, and release the ranks that wait, however it ends."""
        broadcast = self._trainer.distributed.broadcast_object
        try:
            with _no_trace(self._trainer.device):
                results = self._measure(step, weights, *rest)
                if self._plain is not None:
                    self._plain.model.cpu()  # the device's memory is for training
            is_best = False
            if self._best is not None:
                writer.check_in_place()  # it would make its folder anew
                is_best = self._best.update(step, results, weights)
            if results:
                writer.write({"step": step, "eval": results})
            for name, metrics in results.items():
                best = " (best so far)" if is_best and (self._config.best or "").startswith(f"{name}/") else ""
                of, steps = self._trainer.recipe.name, self._trainer.steps
                logger.info("%s %d/%d %s: %s%s", of, step, steps, name, format_metrics(metrics), best)
        except _AskedToStopError:
            broadcast(_STOPPED)
            return False
        except Exception as error:  # of whatever kind: the other ranks wait for a word
            broadcast(str(error) or type(error).__name__)
            raise
        broadcast(_DONE)
        return True

    def _measure(
        self, step: int, weights: dict[str, Any], watchdog: Watchdog, asked: Callable[[], bool]
    ) -> dict[str, dict[str, float]]:
        last_sign = time.monotonic()

        def tick() -> None:
            nonlocal last_sign
            watchdog.phase("evaluation", step)
            if asked():
                raise _AskedToStopError
            if time.monotonic() - last_sign > _SIGN_OF_LIFE_SECONDS:
                last_sign = time.monotonic()
                self._trainer.distributed.broadcast_object(_GOING)

        config, device = self._config, self._trainer.device
        return evaluate(
            self._student(weights),
            self._sets,
            batch_size=config.batch_size,
            workers=config.workers,
            device=device,
            tick=tick,
        )

    def _student(self, weights: dict[str, Any]) -> LoadedModel:
        """The student itself; of one that is sharded over the ranks, a whole copy."""
        trainer = self._trainer
        if trainer.parallel == "ddp":
            return trainer.models.student
        if self._plain is None:
            self._plain = create_student(trainer.recipe, pretrained_towers=False)
        self._plain.model.load_state_dict(weights)
        return self._plain

    def _wait_for_rank_zero(self, step: int, watchdog: Watchdog) -> bool:
        word = _GOING
        while word == _GOING:
            word = self._trainer.distributed.broadcast_object(None)
            watchdog.phase("evaluation", step)
        if word not in (_DONE, _STOPPED):
            raise UserError(f"{self._trainer.distributed} stops because rank 0 cannot evaluate: {word}")
        return word == _DONE


def warn_missing(trainer: Trainer) -> None:
    """Warn of each evaluation set that the run does without."""
    if trainer.distributed.is_rank_zero:
        for item in find_recipe_sets(trainer.recipe.eval).missing:
            logger.warning("%s: evaluation set %s; it is left out (eval.missing: skip)", trainer.recipe.name, item)


@contextmanager
def _no_trace(device: torch.device) -> Iterator[None]:
    """Put all random states back afterwards: data loaders and new models draw from them."""
    python, numbers = random.getstate(), numpy.random.get_state()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            random.setstate(python)
            numpy.random.set_state(numbers)
