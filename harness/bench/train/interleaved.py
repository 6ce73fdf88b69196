"""Interleaved rounds: the trainers take their steps in turn, and the times become rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch

from harness.bench.losses.rows import Origin
from harness.bench.losses.timing import Percentiles
from harness.bench.train.batches import DECODE
from harness.bench.train.clipkd_trainer import PROFILED, ClipkdTrainer
from harness.bench.train.open_clip_trainer import TRAINERS, OpenClipTrainer
from harness.bench.train.parts import PARTS
from harness.bench.train.peak_memory import peak_bytes
from harness.bench.train.rate import matmul_rate
from harness.bench.train.rows import TrainRow, TrainSetting
from harness.config import Recipe

CLIPKD = "clipkd"
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class RoundPlan:
    """How much is measured: timed steps of each trainer over all rounds, untimed ones before them in each round."""

    steps: int
    warm_up: int
    rounds: int

    @property
    def in_round(self) -> int:
        """Timed steps of a round."""
        return max(1, self.steps // self.rounds)

    @property
    def all_steps(self) -> int:
        """Every step that a trainer takes, the one for counting and those under a profiler included."""
        return 1 + self.rounds * (self.warm_up + self.in_round) + PROFILED


@dataclass
class Measured:
    """What the rounds came to: for each trainer and round the steps' milliseconds, and the matmul rates between."""

    rounds: dict[str, list[list[float]]]
    rates: list[float]


def measure(
    recipe: Recipe,
    kind: str,
    baselines: Sequence[str],
    plan: RoundPlan,
    device: torch.device,
    folder: Path,
    source: Origin,
) -> list[TrainRow]:
    """Measure every trainer on the adapted recipe in interleaved rounds; a row each, clipkd's first."""
    ours = ClipkdTrainer(recipe, kind, device, folder)
    others: dict[str, OpenClipTrainer] = {}
    try:
        csv = _csv_of(recipe) if kind == DECODE else None
        for name in baselines:
            others[name] = OpenClipTrainer(recipe, device.type, plan.warm_up + plan.in_round, csv, TRAINERS[name])
        measured, peaks = _interleave(ours, others, plan, device.type, _DTYPES[recipe.train.precision])
        idle = ours.idle()
    finally:
        ours.close()
        for other in others.values():
            other.close()
    peaks[CLIPKD] = peak_bytes(device.type)
    return _rows(ours, _setting(ours, kind), measured, peaks, idle, plan, source)


def _csv_of(recipe: Recipe) -> Path:
    (file,) = recipe.data.train
    assert isinstance(file, str)  # the adapted recipe's, which names the one CSV that was written for it
    return Path(file)


def _interleave(
    ours: ClipkdTrainer, others: dict[str, OpenClipTrainer], plan: RoundPlan, device: str, dtype: torch.dtype
) -> tuple[Measured, dict[str, int]]:
    """Round by round, each trainer once, so that all see the same machine."""
    measured = Measured({name: [] for name in (CLIPKD, *others)}, [])
    peaks: dict[str, int] = {}
    for _ in range(plan.rounds):
        measured.rates.append(matmul_rate(device, dtype))
        found = ours.round(plan.warm_up, plan.in_round)
        measured.rounds[CLIPKD].append([sum(step.values()) for step in found])
        if others and device == "cuda":
            torch.cuda.empty_cache()
        for name, other in others.items():
            timed = other.round()
            measured.rounds[name].append(timed.steps[plan.warm_up :])
            peaks[name] = timed.peak
    measured.rates.append(matmul_rate(device, dtype))
    return measured, peaks


def _rows(
    ours: ClipkdTrainer,
    setting: TrainSetting,
    measured: Measured,
    peaks: dict[str, int],
    idle: float,
    plan: RoundPlan,
    source: Origin,
) -> list[TrainRow]:
    rows = []
    for name, rounds in measured.rounds.items():
        step = Percentiles.of([value for values in rounds for value in values])
        mine = name == CLIPKD
        pairs = zip(rounds, measured.rounds[CLIPKD], strict=True)
        faster = tuple(median(theirs) / median(own) for theirs, own in pairs)
        rows.append(
            TrainRow(
                trainer=name,
                setting=setting,
                origin=source,
                steps=sum(len(values) for values in rounds),
                rounds=plan.rounds,
                step=step,
                images_per_second=1e3 * setting.batch / step.median,
                speedups=() if mine else faster,
                parts={part: Percentiles.of([s[part] for s in ours.steps]) for part in PARTS} if mine else {},
                idle=idle if mine else None,
                flops=None if setting.teacher_cache and not mine else ours.flops,
                matmul_flops_per_second=median(measured.rates),
                peak_bytes=peaks[name],
            )
        )
    return rows


def _setting(ours: ClipkdTrainer, kind: str) -> TrainSetting:
    trainer = ours.trainer
    recipe, models = trainer.recipe, trainer.models
    teachers = recipe.all_teachers if recipe.loss.reading("teacher") else ()
    return TrainSetting(
        recipe=recipe.name,
        objective=" + ".join(f"{weight:g} {term}" for term, weight in recipe.loss.weights.items() if weight),
        data=kind,
        student=models.student.name,
        student_parameters=models.student.parameters["total"],
        teacher=" + ".join(config.model for config in teachers),
        teacher_parameters=sum(teacher.parameters["total"] for teacher in models.teachers),
        teacher_cache=recipe.teacher_cache.use,
        image_size=models.student.image_size,
        batch=recipe.train.batch_size,
        accum_freq=recipe.train.accum_freq,
        precision=recipe.train.precision,
        compile=recipe.train.compile,
        channels_last=recipe.train.channels_last,
        workers=recipe.data.workers,
        device=trainer.device.type,
        threads=torch.get_num_threads(),
    )
