"""The trainers take turns; their times become rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch

from harness.bench.losses.rows import Origin
from harness.bench.losses.timing import Spread
from harness.bench.train.data import DECODE
from harness.bench.train.memory import peak_bytes
from harness.bench.train.openclip import CONTENDERS, OpenClip
from harness.bench.train.ours import PROFILED, Ours
from harness.bench.train.parts import PARTS
from harness.bench.train.rate import matmul_rate
from harness.bench.train.rows import Row, Setting
from harness.config import Recipe

OURS = "clipkd"
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Effort:
    """How much is measured: timed steps of each subject over all rounds, untimed ones before them in each round."""

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
    """What the rounds came to: for each subject and round the steps' milliseconds, and the matmul rates between."""

    turns: dict[str, list[list[float]]]
    rates: list[float]


def measure(
    recipe: Recipe,
    kind: str,
    baselines: Sequence[str],
    effort: Effort,
    device: torch.device,
    folder: Path,
    source: Origin,
) -> list[Row]:
    """Let every trainer take its turns on the adapted recipe; a row each, ours first."""
    ours = Ours(recipe, kind, device, folder)
    others: dict[str, OpenClip] = {}
    try:
        csv = Path(recipe.data.train[0]) if kind == DECODE else None
        for name in baselines:
            others[name] = OpenClip(recipe, device.type, effort.warm_up + effort.in_round, csv, CONTENDERS[name])
        measured, peaks = _take_turns(ours, others, effort, device.type, _DTYPES[recipe.train.precision])
        idle = ours.idle()
    finally:
        ours.close()
        for other in others.values():
            other.close()
    peaks[OURS] = peak_bytes(device.type)
    return _rows(ours, _setting(ours, kind), measured, peaks, idle, effort, source)


def _take_turns(
    ours: Ours, others: dict[str, OpenClip], effort: Effort, device: str, dtype: torch.dtype
) -> tuple[Measured, dict[str, int]]:
    """Round by round, each subject once, so that all see the same machine."""
    measured = Measured({name: [] for name in (OURS, *others)}, [])
    peaks: dict[str, int] = {}
    for _ in range(effort.rounds):
        measured.rates.append(matmul_rate(device, dtype))
        found = ours.turn(effort.warm_up, effort.in_round)
        measured.turns[OURS].append([sum(step.values()) for step in found])
        if others and device == "cuda":
            torch.cuda.empty_cache()
        for name, other in others.items():
            turn = other.turn()
            measured.turns[name].append(turn.steps[effort.warm_up :])
            peaks[name] = turn.peak
    measured.rates.append(matmul_rate(device, dtype))
    return measured, peaks


def _rows(
    ours: Ours,
    setting: Setting,
    measured: Measured,
    peaks: dict[str, int],
    idle: float,
    effort: Effort,
    source: Origin,
) -> list[Row]:
    rows = []
    for name, rounds in measured.turns.items():
        step = Spread.of([value for values in rounds for value in values])
        mine = name == OURS
        pairs = zip(rounds, measured.turns[OURS], strict=True)
        faster = tuple(median(theirs) / median(own) for theirs, own in pairs)
        rows.append(
            Row(
                subject=name,
                setting=setting,
                origin=source,
                steps=sum(len(values) for values in rounds),
                rounds=effort.rounds,
                step=step,
                images_per_second=1e3 * setting.batch / step.median,
                speedups=() if mine else faster,
                parts={part: Spread.of([s[part] for s in ours.steps]) for part in PARTS} if mine else {},
                idle=idle if mine else None,
                flops=None if setting.teacher_cache and not mine else ours.flops,
                matmul_flops_per_second=median(measured.rates),
                peak_bytes=peaks[name],
            )
        )
    return rows


def _setting(ours: Ours, kind: str) -> Setting:
    trainer = ours.trainer
    recipe, models = trainer.recipe, trainer.models
    teachers = recipe.all_teachers if recipe.loss.reading("teacher") else ()
    return Setting(
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
