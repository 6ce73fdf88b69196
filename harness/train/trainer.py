"""Trainer: models, data, optimizer and the training loop of one rank."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from harness.checkpoint import flush_to_disk, save_checkpoint
from harness.config import Recipe
from harness.data import Batch, BatchAugment
from harness.errors import UserError
from harness.metrics import MetricAccumulator, MetricsWriter, keep_steps
from harness.models import LoadedModel
from harness.optim import build_optimizer, build_schedule
from harness.progress import Display, make_display
from harness.records.run_folder import NonFiniteLine
from harness.teachers.opening import open_cache
from harness.teachers.replay import apply_maps
from harness.train.clipping import clip_gradients
from harness.train.distributed import DistributedContext, Signal
from harness.train.failures import told_in_a_sentence
from harness.train.length import local_batch_size, total_steps
from harness.train.loading import open_loader
from harness.train.messages import describe_run, warn_skipped
from harness.train.models import build_models
from harness.train.moved import inputs_of
from harness.train.nonfinite import NonFiniteMonitor, is_finite_step
from harness.train.periodic_evaluation import PeriodicEvaluation, warn_missing
from harness.train.saving import capture_state, restore_state
from harness.train.signals import watch_for_sigterm
from harness.train.step import check_batch_norm, forward_backward, settle_buckets
from harness.watchdog import Watchdog
from kdlosses.layers import MAX_LOGIT_SCALE

logger = logging.getLogger(__name__)


class Trainer:
    """Builds all that a recipe asks for, and runs the training loop.

    Args:
        recipe: what to run.
        out: the run folder, which exists.
        device: of this process.
        distributed: rank and world size of the run; by default one process.
        start: the checkpoint to resume from, or None.
        teachers: the recipe's, where the caller has built and checked them already.

    Raises:
        UserError: for anything the user can fix.
    """

    def __init__(
        self,
        recipe: Recipe,
        out: Path,
        device: torch.device,
        distributed: DistributedContext | None = None,
        start: dict[str, Any] | None = None,
        teachers: Sequence[LoadedModel] | None = None,
    ) -> None:
        self.recipe, self.out, self.device = recipe, out, device
        self.distributed = distributed or DistributedContext()
        self.parallel = recipe.train.parallel if self.distributed.world_size > 1 else "ddp"
        self.batch_size = local_batch_size(recipe, self.distributed.world_size)
        self.cache = open_cache(recipe) if recipe.teacher_cache.use else None
        self.models = build_models(recipe, self.distributed, device, self.cache, teachers)
        self.task = self.models.task
        check_batch_norm(self.task.student, self.batch_size // recipe.train.accum_freq)
        self.loader = open_loader(self, start)
        try:
            self._prepare(start)
        except BaseException:
            self.loader.close()  # its workers run already
            raise

    def _prepare(self, start: dict[str, Any] | None) -> None:
        """Build what depends on the models and the data, and load the checkpoint."""
        recipe, train = self.recipe, self.recipe.train
        self.inputs = inputs_of(recipe) if self.distributed.is_rank_zero else {}
        self.steps = total_steps(recipe, self.loader.num_samples)
        self.augment = BatchAugment(recipe.data.augment)
        self._build_optimizer()
        self._seed_own_draws()
        self.metrics = MetricAccumulator(train.batch_size)
        self.nonfinite = NonFiniteMonitor(self._own_file("nonfinite"), train.on_nonfinite, train.max_nonfinite)
        self.evaluation = PeriodicEvaluation(self)
        self._settled = self.parallel != "ddp" or self.distributed.world_size < 3  # two ranks' sum has one order
        self.first = 1
        if start is not None:
            restore_state(self, start)
            if self.nonfinite.path.exists():
                keep_steps(self.nonfinite.path, start["step"], NonFiniteLine)  # later ones are taken again
            self.first = start["step"] + 1
        if self.first > self.steps + 1:
            raise UserError(
                f"the checkpoint is of step {self.first - 1}, beyond the {self.steps} that the recipe asks for; give "
                "train.steps at least that number"
            )

    def run(self) -> bool:
        """Take every step that is left; False when SIGTERM or SIGHUP has ended the run early, after a checkpoint."""
        self.task.train()
        with (
            watch_for_sigterm() as asked_to_stop,
            self._writing() as writer,
            closing(self.loader),
            make_display(
                self.recipe.name, self.steps, quiet=not self.distributed.is_rank_zero, before=self.first - 1
            ) as display,
            self._watchdog() as watchdog,
            told_in_a_sentence(self.out, self.distributed, watchdog.position, self.loader.lost_worker),
        ):
            logger.info("%s", describe_run(self))
            warn_missing(self)
            known = self._warn_skipped(0)
            finished = self._loop(display, writer, watchdog, asked_to_stop)
            self._warn_skipped(known)
            return finished

    @contextmanager
    def _writing(self) -> Iterator[MetricsWriter | None]:
        """The writer of metrics.jsonl, which only rank 0 has."""
        if not self.distributed.is_rank_zero:
            yield None
            return
        with closing(MetricsWriter(self.out / "metrics.jsonl", up_to=self.first - 1 if self.first > 1 else None)) as it:
            yield it

    def _warn_skipped(self, known: int) -> int:
        return warn_skipped(self.recipe.name, self.loader, known) if self.distributed.is_rank_zero else 0

    def _loop(
        self, display: Display, writer: MetricsWriter | None, watchdog: Watchdog, asked_to_stop: Callable[[], bool]
    ) -> bool:
        train, evaluation = self.recipe.train, (writer, watchdog, asked_to_stop)
        if not self.evaluation.run_missed(*evaluation):
            return False
        for step in range(self.first, self.steps + 1):
            watchdog.phase("data", step)
            batch, signal = self._next_batch(asked_to_stop, watchdog, step)
            watchdog.phase("step", step)
            lr = float(self.schedule.get_last_lr()[0])
            losses, scalars, ok = self.train_step(batch)
            self.metrics.add(losses, scalars, ok)
            self.nonfinite.add(step, ok, {**losses, "grad_norm": scalars["grad_norm"]}, batch.keys)
            display.advance(step)
            saves = signal is Signal.STOP or self._due(step, train.save_every)
            if saves or self._due(step, train.log_every):
                self.nonfinite.flush()
            if self._due(step, train.log_every):
                self._report(step, lr, writer, display)
            if saves:
                self._save_together(step, writer, watchdog)
            if signal is Signal.GO and self.evaluation.is_due(step) and not self.evaluation.run(step, *evaluation):
                signal = Signal.STOP
                if not saves:
                    self._save_together(step, writer, watchdog)
            if signal is Signal.STOP:
                logger.info("%s: SIGTERM or SIGHUP came; saved step %d", self.recipe.name, step)
                return False
        # It may have come during the last step or its checkpoint: what follows can take long.
        return self.distributed.reduce_max(Signal.STOP if asked_to_stop() else Signal.GO) is Signal.GO

    def _next_batch(self, asked_to_stop: Callable[[], bool], watchdog: Watchdog, step: int) -> tuple[Batch, Signal]:
        """This rank's next batch, and what all ranks agree to do."""
        problem: Exception | None = None
        batch = None
        try:
            batch = next(self.loader)
        except Exception as error:  # of whatever kind: the other ranks wait for a word
            problem = error
        if self.distributed.world_size > 1:
            watchdog.phase("exchange", step)
        own = Signal.FAILED if problem else Signal.STOP if asked_to_stop() else Signal.GO
        signal = self.distributed.reduce_max(own)
        if problem is not None:
            raise problem
        assert batch is not None
        if signal is Signal.FAILED:
            raise UserError(f"{self.distributed} stops because another process cannot go on; its message says why")
        return batch, signal

    def train_step(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
        """One optimizer step.

        Returns:
            The weighted losses, other scalars, and whether all was finite (else the weights are what they were); on the
            device, unread.
        """
        images = batch.images.to(self.device, non_blocking=True)
        cached = batch.cached
        view = self.augment(images, self.generator) if cached is None else apply_maps(images, cached.maps)
        if self.recipe.train.channels_last:
            view = view.contiguous(memory_format=torch.channels_last)
        self.optimizer.zero_grad(set_to_none=True)
        passes = (
            self.task,
            self.task.inputs(view, batch),
            self.generator,
            self.recipe.train.accum_freq,
            self.scaler.scale,
        )
        if not self._settled:
            settle_buckets(*passes)
            self._settled = True
        losses, scale = forward_backward(*passes)
        self.scaler.unscale_(self.optimizer)
        norm = clip_gradients(self.parameters, self.recipe.optim.grad_clip or math.inf)
        ok = is_finite_step(losses, norm, self.scaler)
        self._update(ok)
        self.schedule.step()
        self._clamp_scales()
        return losses, {"logit_scale": scale, "grad_norm": norm}, ok

    def _update(self, ok: Tensor) -> None:
        if self.scaler.is_enabled():
            self.scaler.step(self.optimizer)
            self.scaler.update()
        elif self.device.type == "cpu":
            if ok:
                self.optimizer.step()
        else:
            # What a GradScaler tells fused optimizers: they leave all as it is where this is 1, without being read.
            self.optimizer.found_inf = (~ok).float()  # type: ignore[attr-defined]  # as GradScaler does
            self.optimizer.step()

    def _save_together(self, step: int, writer: MetricsWriter | None, watchdog: Watchdog) -> None:
        watchdog.phase("checkpoint", step)
        if writer is not None:
            writer.check_in_place()  # a checkpoint would make its folder anew
        self.save(step)
        # torchrun ends all ranks when the first exits, and rank 0 may still be writing.
        self.distributed.broadcast_object(None)

    def save(self, step: int) -> None:
        """Write a checkpoint; every rank takes part, rank 0 writes."""
        state = capture_state(self, step)
        if state is not None:
            # First the lines before it: a resumed run writes only those after it again.
            for lines in self.out.glob("*.jsonl"):
                flush_to_disk(lines)
            save_checkpoint(self.out / "checkpoints", state, step, self.recipe.train.keep_last)

    def _build_optimizer(self) -> None:
        recipe = self.recipe
        named = self.task.trainable()
        self.parameters = [p for _, p in named]
        self.optimizer = build_optimizer(named, recipe.optim, recipe.student.model, fused=self.device.type == "cuda")
        self.schedule = build_schedule(self.optimizer, recipe.schedule, self.steps)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=recipe.train.precision == "fp16")

    def _seed_own_draws(self) -> None:
        """Seed dropout, masks and augmentation by rank; the weights, made before, are the same on all."""
        own = self.recipe.seed + self.distributed.rank
        self.generator = torch.Generator(self.device).manual_seed(own)
        random.seed(own)
        numpy.random.seed(own % 2**32)
        if self.distributed.rank:
            torch.manual_seed(own)

    def _report(self, step: int, lr: float, writer: MetricsWriter | None, display: Display) -> None:
        values = self.metrics.flush(step, lr)
        if writer is not None:
            writer.write(values)
        display.report(values)

    @torch.no_grad()
    def _clamp_scales(self) -> None:
        scale = self.task.student.logit_scale
        assert isinstance(scale, Tensor)
        scale.clamp_(0, MAX_LOGIT_SCALE)
        self.task.loss.clamp_scales()

    def _watchdog(self) -> Watchdog:
        train, own = self.recipe.train, self.distributed
        return Watchdog(self.out, own.rank, own.world_size, train.stall_timeout, abort_after=train.stall_abort_timeout)

    def _due(self, step: int, every: int | None) -> bool:
        return step == self.steps or (every is not None and step % every == 0)

    def _own_file(self, stem: str) -> Path:
        rank = self.distributed.rank
        return self.out / (f"{stem}.jsonl" if rank == 0 else f"{stem}.rank{rank}.jsonl")
