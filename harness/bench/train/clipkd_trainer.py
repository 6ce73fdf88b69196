"""The recipe's own training step, timed part by part."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from harness.bench.losses.timing import make_clock
from harness.bench.train.batches import SYNTHETIC, keep
from harness.bench.train.idle import CpuMeter, cuda_idle
from harness.bench.train.parts import Recorder, watched
from harness.bench.train.rate import count_flops
from harness.config import Recipe
from harness.data import Batch
from harness.train import Trainer

# Steps under the profiler, which tells how long a GPU had no kernel.
PROFILED = 3


class ClipkdTrainer:
    """A trainer of this package, ready for its rounds.

    Args:
        recipe: what to train, its data adapted already.
        kind: of the data.
        device: where.
        folder: takes what a run writes.
    """

    def __init__(self, recipe: Recipe, kind: str, device: torch.device, folder: Path) -> None:
        self.trainer = Trainer(recipe, folder, device)
        self.trainer.task.train()
        self._device = device
        self._batches: Iterator[Batch] = keep(self.trainer.loader, device) if kind == SYNTHETIC else self.trainer.loader
        self._recorder, self._meter = Recorder(make_clock(device.type)), CpuMeter()
        self.flops = count_flops(lambda: self.trainer.train_step(next(self._batches)))
        self.steps: list[dict[str, float]] = []

    def round(self, warm_up: int, steps: int) -> list[dict[str, float]]:
        """Take steps; returns the milliseconds of each part of each, those of the warm-up left out."""
        with watched(self.trainer.task, self.trainer.optimizer, self._recorder):
            self._take(warm_up)
            self._recorder.clear()
            self._meter.add(lambda: self._take(steps))
            found = self._recorder.steps()
            self._recorder.clear()
        self.steps += found
        return found

    def idle(self) -> float:
        """The share of the time of the rounds in which the device had nothing to do."""
        if self._device.type == "cpu":
            return self._meter.idle()
        usual = sum(sum(step.values()) for step in self.steps) / len(self.steps)
        with watched(self.trainer.task, self.trainer.optimizer, self._recorder):
            return cuda_idle(lambda: self._take(PROFILED), PROFILED * usual)

    def close(self) -> None:
        """Stop the loader's workers."""
        self.trainer.loader.close()

    def _take(self, steps: int) -> None:
        for _ in range(steps):
            self._recorder.begin()
            batch = next(self._batches)
            self._recorder.enter("inputs")
            self.trainer.train_step(batch)
            self._recorder.end()
