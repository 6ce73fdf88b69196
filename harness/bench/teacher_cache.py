"""Benchmark of the teacher cache: step time and memory with it and without, on the same machine in one run.

``python -m harness.bench.teacher_cache OUT.json [--recipe RECIPE] [--set KEY=VALUE ...] [--steps 10] [--rounds 5]``
makes the cache in a temporary folder, then lets a trainer with the live teacher and one with the cache take turns, so
that what the machine does meanwhile touches both; the ratio is taken round by round. Each trainer's memory is that of a
process of its own: its peak resident size above that of the imports on a CPU (Linux), what torch allocated on a GPU.
Without a recipe it is a small pair that a CPU trains, its images decoded before the first step.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from harness.bench.losses.timing import make_clock
from harness.config import Recipe, dump_recipe, load_recipe
from harness.files import write_json
from harness.models import pick_device
from harness.orphans import child_command
from harness.runs import environment
from harness.teachers.build import build_cache
from harness.train import Trainer

MODES = ("live", "cached")
WARM_UP = 2
_TEXT = {"context_length": 32, "vocab_size": 49408, "layers": 3}
_VISION = {"image_size": 96, "head_width": 32, "patch_size": 16}
# As in the paper's ViT-B/16 and ViT-T/16, the teacher's image tower costs some 13 times the student's.
SMALL: dict[str, Any] = {
    "name": "teacher-cache",
    "data": {"train": "synthetic:128", "crop_scale": (0.9, 1.0), "cache": "memory"},
    "student": {
        "model": "bench-cache-student",
        "config": {
            "embed_dim": 128,
            "vision_cfg": {**_VISION, "layers": 4, "width": 128},
            "text_cfg": {**_TEXT, "width": 128, "heads": 4},
        },
    },
    "teacher": {
        "model": "bench-cache-teacher",
        "config": {
            "embed_dim": 256,
            "vision_cfg": {**_VISION, "layers": 8, "width": 320},
            "text_cfg": {**_TEXT, "width": 192, "heads": 6, "layers": 4},
        },
    },
    "teacher_cache": {"views": 2},
    "loss": {"weights": {"contrastive": 1, "crd": 1, "fd": 100, "icl": 1}},
    "train": {"batch_size": 64, "steps": 1000, "device": "auto"},
}


def main(arguments: list[str]) -> None:
    """Measure and write the report."""
    given = _parse(arguments)
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "small.yaml"
        small.write_text(dump_recipe(Recipe.model_validate(SMALL)), encoding="utf-8")
        recipe = load_recipe(given.recipe or small, given.set)
        if given.child:
            print(memory(recipe, given.steps))
            return
        report = measure(recipe, Path(folder), given.steps, given.rounds)
    command = " ".join(["python -m harness.bench.teacher_cache", *arguments])
    device = pick_device(recipe.train.device)
    report = {**report, **environment(device), "command": command, "recipe": json.loads(recipe.model_dump_json())}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(given.out, report)
    print(json.dumps({name: report[name] for name in ("cache", "step", "memory")}, indent=2))


def measure(recipe: Recipe, folder: Path, steps: int, rounds: int) -> dict[str, Any]:
    """Make the cache, time both trainers, weigh both trainers."""
    live, cached = (
        recipe.model_copy(update={"teacher_cache": recipe.teacher_cache.model_copy(
            update={"use": use, "path": str(folder / "cache")})})
        for use in (False, True)
    )  # fmt: skip
    made = build_cache(live)
    return {
        "cache": {
            "samples": made.samples,
            "views": made.views,
            "bytes_per_sample": round(made.bytes / max(1, made.samples)),
            "images_per_second": round(made.samples * made.views / made.seconds, 1),
        },
        "step": times(dict(zip(MODES, (live, cached), strict=True)), folder, steps, rounds),
        "memory": _weigh(dict(zip(MODES, (live, cached), strict=True)), folder, steps),
    }


def times(recipes: dict[str, Recipe], folder: Path, steps: int, rounds: int) -> dict[str, Any]:
    """Milliseconds of a step of each trainer, and how many times as fast the cached one is."""
    device = pick_device(recipes["live"].train.device)
    trainers = {name: _trainer(recipe, folder / name, device) for name, recipe in recipes.items()}
    clock = make_clock(device.type)
    turns: dict[str, list[float]] = {name: [] for name in recipes}
    for number in range(rounds):
        for name, trainer in trainers.items():
            for _ in range(WARM_UP if number == 0 else 1):
                trainer.train_step(next(trainer.loader))
            start = clock.mark()
            for _ in range(steps):
                trainer.train_step(next(trainer.loader))
            turns[name].append(clock.between(start, clock.mark()) / steps)
    for trainer in trainers.values():
        trainer.loader.close()
    ratios = [live / cached for live, cached in zip(turns["live"], turns["cached"], strict=True)]
    shown = {f"{name}_ms": round(statistics.median(turn), 2) for name, turn in turns.items()}
    return {**shown, "times_as_fast": _spread(ratios), "rounds": rounds, "steps_in_a_round": steps}


def memory(recipe: Recipe, steps: int) -> int:
    """Bytes that a trainer takes at most, above what the process had before; run in a fresh process."""
    device = pick_device(recipe.train.device)
    before = _peak(device)
    with tempfile.TemporaryDirectory() as folder:
        trainer = _trainer(recipe, Path(folder) / "run", device)
        for _ in range(steps):
            trainer.train_step(next(trainer.loader))
        trainer.loader.close()
    return _peak(device) - before


def _peak(device: torch.device) -> int:
    """The most memory so far: what torch had allocated on a GPU, else the high-water mark of the resident set."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    # Not getrusage, whose peak a new process inherits from the one that started it.
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def _weigh(recipes: dict[str, Recipe], folder: Path, steps: int) -> dict[str, Any]:
    found = {}
    for name, recipe in recipes.items():
        path = folder / f"{name}.yaml"
        path.write_text(dump_recipe(recipe), encoding="utf-8")
        found[name] = _in_own_process(path, steps)
    shown = {f"{name}_mib": round(value / 2**20, 1) for name, value in found.items()}
    return {**shown, "cached_share": round(found["cached"] / found["live"], 3) if found["live"] else None}


def _in_own_process(recipe: Path, steps: int) -> int:
    arguments = ["-", "--child", "--recipe", str(recipe), "--steps", str(steps)]
    command = child_command("harness.bench.teacher_cache", *arguments)
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


def _trainer(recipe: Recipe, folder: Path, device: torch.device) -> Trainer:
    folder.mkdir(parents=True)
    trainer = Trainer(recipe, folder, device)
    trainer.task.train()
    return trainer


def _spread(values: list[float]) -> dict[str, float]:
    return {
        "least": round(min(values), 3),
        "median": round(statistics.median(values), 3),
        "most": round(max(values), 3),
    }


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--recipe", help="default: a small pair for a CPU")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--steps", type=int, default=10, help="of a trainer in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
