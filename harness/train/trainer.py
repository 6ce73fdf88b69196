"""Models, data, optimizer and the loop over steps of one process of a run."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from harness.checkpoint import flush_to_disk, save_checkpoint
from harness.config import Recipe
from harness.data import Batch, BatchAugment, Loader, build_loader
from harness.data.dataloader import lost_worker
from harness.errors import UserError
from harness.metrics import Interval, MetricsWriter, keep_steps
from harness.models import LoadedModel
from harness.optim import build_optimizer, build_schedule
from harness.progress import Display, make_display
from harness.teachers.opening import open_cache
from harness.teachers.replay import apply_maps
from harness.train.clipping import clip_gradients
from harness.train.health import Health, is_healthy
from harness.train.length import share_of_batch, steps_of
from harness.train.messages import describe, warn_skipped
from harness.train.models import build_models
from harness.train.periodic import Periodic, warn_missing
from harness.train.processes import Processes, Signal
from harness.train.saving import capture, restore
from harness.train.signals import watching_for_sigterm
from harness.train.step import forward_backward
from harness.watchdog import Watchdog
from kdlosses.layers import MAX_LOGIT_SCALE

logger = logging.getLogger(__name__)


class Trainer:
    """Builds everything a recipe asks for, and takes its steps.

    Args:
        recipe: what to run.
        out: the run folder, which exists.
        device: of this process.
        processes: of the run.
        start: the checkpoint to go on from, or None.
        teachers: the recipe's, where somebody has built and tried them already.

    Raises:
        UserError: for anything the user can mend.
    """

    def __init__(
        self,
        recipe: Recipe,
        out: Path,
        device: torch.device,
        processes: Processes | None = None,
        start: dict[str, Any] | None = None,
        teachers: Sequence[LoadedModel] | None = None,
    ) -> None:
        self.recipe, self.out, self.device = recipe, out, device
        self.processes = processes or Processes()
        self.parallel = recipe.train.parallel if self.processes.world_size > 1 else "ddp"
        self.batch_size = share_of_batch(recipe, self.processes.world_size)
        self.cache = open_cache(recipe) if recipe.teacher_cache.use else None
        self.models = build_models(recipe, self.processes, device, self.cache, teachers)
        self.task = self.models.task
        self.loader = self._build_loader(start)
        self.steps = steps_of(recipe, self.loader.num_samples)
        self.augment = BatchAugment(recipe.data.augment)
        self._build_optimizer()
        self._seed_own_draws()
        self.interval = Interval(recipe.train.batch_size)
        self.health = Health(self._own_file("nonfinite"), recipe.train.on_nonfinite, recipe.train.max_nonfinite)
        self.periodic = Periodic(self)
        self.first = 1
        if start is not None:
            restore(self, start)
            if self.health.path.exists():
                keep_steps(self.health.path, start["step"])  # later ones are taken again
            self.first = start["step"] + 1
        if self.first > self.steps + 1:
            raise UserError(
                f"the checkpoint is of step {self.first - 1}, beyond the {self.steps} that the recipe asks for; give "
                "train.steps at least that number"
            )

    def run(self) -> bool:
        """Take every step that is left; False when SIGTERM has ended the run early, after a checkpoint."""
        writer = None
        if self.processes.is_main:
            writer = MetricsWriter(self.out / "metrics.jsonl", up_to=self.first - 1 if self.first > 1 else None)
        self.task.train()
        try:
            with (
                make_display(
                    self.recipe.name, self.steps, quiet=not self.processes.is_main, before=self.first - 1
                ) as display,
                self._watchdog() as dog,
                watching_for_sigterm() as asked_to_stop,
            ):
                logger.info("%s", describe(self))
                warn_missing(self)
                known = self._warn_skipped(0)
                finished = self._guarded_loop(display, writer, dog, asked_to_stop)
                self._warn_skipped(known)
                return finished
        finally:
            self.loader.close()
            if writer is not None:
                writer.close()

    def _warn_skipped(self, known: int) -> int:
        return warn_skipped(self.recipe.name, self.loader, known) if self.processes.is_main else 0

    def _guarded_loop(self, *arguments: Any) -> bool:
        try:
            return self._loop(*arguments)
        except (RuntimeError, OSError, EOFError) as error:
            # Torch raises for a killed data worker wherever the main thread happens to be, and for another process that
            # is gone wherever this one next needs it.
            lost = lost_worker(error) or self.processes.lost(error)
            if lost is None:
                raise
            raise lost from error

    def _loop(
        self, display: Display, writer: MetricsWriter | None, dog: Watchdog, asked_to_stop: Callable[[], bool]
    ) -> bool:
        train, evaluation = self.recipe.train, (writer, dog, asked_to_stop)
        if not self.periodic.catch_up(*evaluation):
            return False
        for step in range(self.first, self.steps + 1):
            dog.phase("data", step)
            batch, signal = self._next_batch(asked_to_stop, dog, step)
            dog.phase("step", step)
            lr = self.schedule.get_last_lr()[0]
            losses, report, ok = self.train_step(batch)
            self.interval.add(losses, report, ok)
            self.health.add(step, ok, {**losses, "grad_norm": report["grad_norm"]}, batch.keys)
            display.advance(step)
            saves = signal is Signal.STOP or self._due(step, train.save_every)
            if saves or self._due(step, train.log_every):
                self.health.settle()
            if self._due(step, train.log_every):
                self._report(step, lr, writer, display)
            if saves:
                self._save_together(step, dog)
            if signal is Signal.GO and self.periodic.is_due(step) and not self.periodic.run(step, *evaluation):
                signal = Signal.STOP
                if not saves:
                    self._save_together(step, dog)
            if signal is Signal.STOP:
                logger.info("%s: SIGTERM came; saved step %d", self.recipe.name, step)
                return False
        # It may have come during the last step or its checkpoint: what follows can take long.
        return self.processes.worst(Signal.STOP if asked_to_stop() else Signal.GO) is Signal.GO

    def _next_batch(self, asked_to_stop: Callable[[], bool], dog: Watchdog, step: int) -> tuple[Batch, Signal]:
        """This process's next batch, and what all processes agree to do."""
        problem: Exception | None = None
        batch = None
        try:
            batch = next(self.loader)
        except Exception as error:  # whatever it is, the others are waiting to be told
            problem = error
        if self.processes.world_size > 1:
            dog.phase("exchange", step)
        own = Signal.FAILED if problem else Signal.STOP if asked_to_stop() else Signal.GO
        signal = self.processes.worst(own)
        if problem is not None:
            raise problem
        if signal is Signal.FAILED:
            raise UserError(f"{self.processes} stops because another process cannot go on; its message says why")
        return batch, signal

    def train_step(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
        """One optimizer step.

        Returns:
            The weighted losses, other scalars, and whether all was finite (else the weights are what they were); on the
            device, unread.
        """
        images = batch.images.to(self.device, non_blocking=True)
        replayed = batch.cached is not None
        view = apply_maps(images, batch.cached.maps) if replayed else self.augment(images, self.generator)
        if self.recipe.train.channels_last:
            view = view.contiguous(memory_format=torch.channels_last)
        self.optimizer.zero_grad(set_to_none=True)
        inputs = self.task.inputs(view, batch)
        losses, scale = forward_backward(
            self.task, inputs, self.generator, self.recipe.train.accum_freq, self.scaler.scale
        )
        self.scaler.unscale_(self.optimizer)
        norm = clip_gradients(self.parameters, self.recipe.optim.grad_clip or math.inf)
        ok = is_healthy(losses, norm, self.scaler)
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
            self.optimizer.found_inf = (~ok).float()
            self.optimizer.step()

    def _save_together(self, step: int, dog: Watchdog) -> None:
        dog.phase("checkpoint", step)
        self.save(step)
        # The first to leave would take the others along while the main process still writes.
        self.processes.same_for_all(None)

    def save(self, step: int) -> None:
        """Write a checkpoint; every process takes part, the main one writes."""
        state = capture(self, step)
        if state is not None:
            # First the lines before it: a resumed run writes only those after it again.
            for lines in self.out.glob("*.jsonl"):
                flush_to_disk(lines)
            save_checkpoint(self.out / "checkpoints", state, step, self.recipe.train.keep_last)

    def _build_loader(self, start: dict[str, Any] | None) -> Loader:
        recipe, rank = self.recipe, self.processes.rank
        states = start["ranks"] if start else None
        return build_loader(
            recipe.data,
            batch_size=self.batch_size,
            seed=recipe.seed,
            image_size=recipe.data.image_size or max(model.image_size for model in self.models.by_role().values()),
            # Cached teachers read no captions.
            tokenizers={
                r: m.tokenizer for r, m in self.models.by_role(live=True).items() if not self.cache or r == "student"
            },
            cache=self.cache,
            bad_samples=self.out / "bad_samples.jsonl",
            rank=rank,
            world_size=self.processes.world_size,
            state=states[min(rank, len(states) - 1)]["loader"] if states else None,
            pin_memory=self.device.type == "cuda",
        )

    def _build_optimizer(self) -> None:
        recipe = self.recipe
        named = self.task.trainable()
        self.parameters = [p for _, p in named]
        self.optimizer = build_optimizer(named, recipe.optim, recipe.student.model, fused=self.device.type == "cuda")
        self.schedule = build_schedule(self.optimizer, recipe.schedule, self.steps)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=recipe.train.precision == "fp16")

    def _seed_own_draws(self) -> None:
        """Dropout, masks and augmentation differ between processes; weights, made before, do not."""
        own = self.recipe.seed + self.processes.rank
        self.generator = torch.Generator(self.device).manual_seed(own)
        random.seed(own)
        numpy.random.seed(own % 2**32)
        if self.processes.rank:
            torch.manual_seed(own)

    def _report(self, step: int, lr: float, writer: MetricsWriter | None, display: Display) -> None:
        values = self.interval.flush(step, lr)
        if writer is not None:
            writer.write(values)
        display.report(values)

    @torch.no_grad()
    def _clamp_scales(self) -> None:
        self.task.student.logit_scale.clamp_(0, MAX_LOGIT_SCALE)
        self.task.loss.clamp_scales()

    def _watchdog(self) -> Watchdog:
        train, own = self.recipe.train, self.processes
        return Watchdog(self.out, own.rank, own.world_size, train.stall_timeout, abort_after=train.stall_abort_timeout)

    def _due(self, step: int, every: int | None) -> bool:
        return step == self.steps or (every is not None and step % every == 0)

    def _own_file(self, stem: str) -> Path:
        rank = self.processes.rank
        return self.out / (f"{stem}.jsonl" if rank == 0 else f"{stem}.rank{rank}.jsonl")
