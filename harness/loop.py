"""The training loop: one recipe in, one run folder out."""

from __future__ import annotations

import math
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from harness.checkpoint import save_checkpoint
from harness.config import Recipe, dump_recipe
from harness.data import Batch, BatchAugment, build_loader
from harness.errors import UserError
from harness.evaluate import evaluate
from harness.evaluate.layout import inspect
from harness.export import export_model
from harness.files import write_json
from harness.metrics import Interval, MetricsWriter
from harness.models import LoadedModel, create_model, pick_device
from harness.optim import build_optimizer, build_schedule
from harness.probe import probe
from harness.progress import Display, make_display
from harness.runs import DONE, prepare_run
from harness.task import DistillTask
from kdlosses.layers import MAX_LOGIT_SCALE

_AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def train(recipe: Recipe, out: Path, *, command: str | None = None) -> dict[str, Any]:
    """Train the recipe's student, export it, evaluate it, and write everything into ``out``.

    Args:
        recipe: what to run.
        out: the run folder; an interrupted run there is replaced, a finished one refused.
        command: what the user typed, for the record; this process's command line by default.

    Returns:
        The content of ``out/summary.json``: name, steps, seconds, images_per_second, parameters, metrics by set.

    Raises:
        UserError: for anything the user can mend.
    """
    device = pick_device(recipe.train.device)
    for item in recipe.eval.sets:
        if item.synthetic is None:
            inspect(item)  # now, not after hours of training
    _set_up_torch(recipe)
    prepare_run(recipe, out, command, device)
    trainer = Trainer(recipe, out, device)
    seconds = trainer.run()
    student = trainer.student
    export_model(student, out / "export", metadata={"recipe": recipe.name, "steps": trainer.steps})
    metrics = _evaluate(student, recipe, out, device)
    summary = {
        "name": recipe.name,
        "model": student.name,
        "parameters": student.parameters,
        "steps": trainer.steps,
        "seconds": round(seconds, 2),
        "images_per_second": round(trainer.steps * recipe.train.batch_size / seconds, 1),
        "bad_samples": dict(trainer.loader.bad.counts),
        "metrics": metrics,
    }
    write_json(out / DONE, summary)
    return summary


def _evaluate(student: LoadedModel, recipe: Recipe, out: Path, device: torch.device) -> dict[str, dict[str, float]]:
    try:
        sets = list(recipe.eval.sets)
        return evaluate(student, sets, batch_size=recipe.eval.batch_size, device=device, out=out / "eval")
    except UserError as error:
        way_on = f"the trained model is safe in {out / 'export'}: mend the set and run `clipkd eval {out}`"
        raise UserError(f"{error}; {way_on}") from error


class Trainer:
    """Models, data, optimizer and the loop over steps of one run."""

    def __init__(self, recipe: Recipe, out: Path, device: torch.device) -> None:
        self.recipe, self.out, self.device = recipe, out, device
        torch.manual_seed(recipe.seed)
        self.student = create_model(recipe.student)
        self.teacher = create_model(recipe.teacher) if recipe.teacher else None
        for role, model in self._models().items():
            probe(model, role)
        autocast = _AUTOCAST[recipe.train.precision]
        self.task = DistillTask(self.student, self.teacher, recipe.loss, autocast).to(device)
        if recipe.train.channels_last:
            self.task.to(memory_format=torch.channels_last)
        self.loader = build_loader(
            recipe.data,
            batch_size=recipe.train.batch_size,
            seed=recipe.seed,
            image_size=recipe.data.image_size or max(model.image_size for model in self._models().values()),
            tokenizers={role: model.tokenizer for role, model in self._models().items()},
            bad_samples=out / "bad_samples.jsonl",
        )
        self.steps = recipe.train.steps or self._steps_of_epochs(recipe.train.epochs)
        if recipe.schedule.warmup_steps > self.steps:
            raise UserError(
                f"schedule.warmup_steps is {recipe.schedule.warmup_steps}, but train.epochs makes {self.steps} steps: "
                "the learning rate would never reach its peak; lower it or train longer"
            )
        self.augment = BatchAugment(recipe.data.augment)
        self.generator = torch.Generator(device).manual_seed(recipe.seed)
        named = self.task.trainable()
        self.parameters = [p for _, p in named]
        self.optimizer = build_optimizer(named, recipe.optim, recipe.student.model)
        self.schedule = build_schedule(self.optimizer, recipe.schedule, self.steps)
        self.scaler = torch.amp.GradScaler(device.type, enabled=recipe.train.precision == "fp16")

    def run(self) -> float:
        """Take every step; returns the seconds they took."""
        interval = Interval(self.recipe.train.batch_size, skips_bad_steps=self.scaler.is_enabled())
        writer = MetricsWriter(self.out / "metrics.jsonl")
        batches = iter(self.loader)
        self.task.train()
        start = time.perf_counter()
        try:
            with make_display(self.recipe.name, self.steps) as display:
                display.note(self.describe())
                told = self._tell_bad(display, told=0)
                for step in range(1, self.steps + 1):
                    lr = self.schedule.get_last_lr()[0]
                    interval.add(*self.train_step(next(batches)))
                    display.advance(step)
                    # Before a checkpoint too: flush refuses what is not finite, so none is ever saved.
                    if self._due(step, self.recipe.train.log_every) or self._due(step, self.recipe.train.save_every):
                        values = interval.flush(step, lr)
                        writer.write(values)
                        display.report(values)
                    if self._due(step, self.recipe.train.save_every):
                        self.save(step)
                self._tell_bad(display, told)
        finally:
            writer.close()
        return time.perf_counter() - start

    def describe(self) -> str:
        """One line on what is about to run."""
        models = [f"{role} {_size(model)}" for role, model in self._models().items()]
        if self.teacher and self.teacher.is_random:
            models.append("whose weights are RANDOM")
        if self.teacher and self.task.teacher is None:
            models.append("which no term uses")
        terms = " + ".join(f"{weight:g} {term}" for term, weight in self.task.loss.weights.items())
        batch = self.recipe.train.batch_size
        return (
            f"{self.recipe.name}: {', '.join(models)}; {terms}; {self.loader.describe()}; "
            f"{self.steps} steps of {batch} on {self.device}"
        )

    def train_step(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """One optimizer step; returns the weighted losses and other scalars, on the device, unread."""
        view = self.augment(batch.images.to(self.device, non_blocking=True), self.generator)
        if self.recipe.train.channels_last:
            view = view.contiguous(memory_format=torch.channels_last)
        losses, report = self.task(view, batch, self.generator)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(sum(losses.values())).backward()
        self.scaler.unscale_(self.optimizer)
        limit = self.recipe.optim.grad_clip or math.inf
        report["grad_norm"] = nn.utils.clip_grad_norm_(self.parameters, limit)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.schedule.step()
        self._clamp_scales()
        return {name: value.detach() for name, value in losses.items()}, report

    def save(self, step: int) -> None:
        """Write a checkpoint; the teacher is never part of it."""
        state = {
            "step": step,
            "name": self.recipe.name,
            "recipe": dump_recipe(self.recipe),
            "state_dict": self.task.student.state_dict(),
            "loss": self.task.loss.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
        }
        save_checkpoint(self.out / "checkpoints", state, step, self.recipe.train.keep)

    @torch.no_grad()
    def _clamp_scales(self) -> None:
        self.task.student.logit_scale.clamp_(0, MAX_LOGIT_SCALE)
        self.task.loss.clamp_scales()

    def _due(self, step: int, every: int | None) -> bool:
        return step == self.steps or (every is not None and step % every == 0)

    def _tell_bad(self, display: Display, told: int) -> int:
        """Show what has been skipped, if it is more than was told: cached data is read before the first step."""
        bad = self.loader.bad
        if bad.counts.total() > told:
            kinds = ", ".join(f"{count} {kind}" for kind, count in bad.counts.most_common())
            display.note(f"{self.recipe.name}: WARNING, skipped broken samples ({kinds}), listed in {bad.path}")
        return bad.counts.total()

    def _models(self) -> dict[str, LoadedModel]:
        return {"student": self.student} | ({"teacher": self.teacher} if self.teacher else {})

    def _steps_of_epochs(self, epochs: int) -> int:
        if self.loader.num_samples is None:
            raise UserError(
                "train.epochs needs to know how many samples there are, which shards do not say; "
                "give train.steps instead (samples x epochs / batch_size)"
            )
        return max(1, epochs * self.loader.num_samples // self.recipe.train.batch_size)


def _size(model: LoadedModel) -> str:
    return f"{model.name} ({model.parameters['total'] / 1e6:.2f} M)"


def _set_up_torch(recipe: Recipe) -> None:
    if recipe.train.threads:
        torch.set_num_threads(recipe.train.threads)
    torch.set_flush_denormal(recipe.train.flush_denormal)
    # In fp16 the scaler skips the first steps, as it should; torch then suspects the wrong order of calls.
    warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step", category=UserWarning)
