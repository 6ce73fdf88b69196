"""Run folders as `clipkd train` leaves them, made by hand in milliseconds."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from harness.config import Recipe, dump_recipe
from harness.export import export_model
from harness.models import create_model
from tests.harness import tiny

SCORES = {"zeroshot": {"top1": 41.0, "top5": 82.0}, "retrieval": {"i2t_r1": 12.5, "t2i_r1": 8.25}}
COMMAND = "clipkd train tiny --set train.steps=40"
SETS = [
    {"name": "zeroshot", "kind": "zeroshot", "path": "synthetic:12"},
    {"name": "retrieval", "kind": "retrieval", "path": "synthetic:12"},
]


def recipe(**sections: Any) -> Recipe:
    """The tiny recipe with evaluation sets and 40 steps."""
    base: dict[str, Any] = {"eval": {"sets": SETS}, "train": {"steps": 40}}
    return tiny.recipe(**{**base, **sections})


def line(step: int, *terms: str) -> dict[str, Any]:
    """A line of metrics.jsonl."""
    losses = {f"{term}_loss": (place + 1) * math.exp(-step / 20) for place, term in enumerate(terms)}
    rest = {"lr": 1e-3 * step, "logit_scale": 14.3 + step / 100, "grad_norm": 1.5, "images_per_second": 500.0}
    return {"step": step, "seconds": step / 10, "loss": sum(losses.values()), **losses, **rest}


def write_run(
    folder: Path,
    made: Recipe | None = None,
    *,
    scores: Mapping[str, Mapping[str, float]] = SCORES,
    on_the_way: bool = False,
    finished: bool = True,
    export: bool = False,
) -> Path:
    """A run with four reports; ``on_the_way``: evaluated twice before its end; ``export``: with a random student."""
    made = made or recipe()
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(dump_recipe(made))
    about = {"date": "2026-11-20T10:00:00+00:00", "versions": {"python": "3.11.7", "torch": "2.14.1"}, "seed": 0}
    about |= {"git_commit": "abc123", "device": "a CPU", "threads": 1, "command": COMMAND}
    (folder / "run.json").write_text(json.dumps(about))
    lines = [line(step, *made.loss.active) for step in (10, 20, 30, 40)]
    if on_the_way:
        lines[2:2] = [{"step": 20, "eval": {name: {k: v / 2 for k, v in one.items()} for name, one in scores.items()}}]
        lines[1:1] = [{"step": 10, "eval": {name: {k: v / 4 for k, v in one.items()} for name, one in scores.items()}}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    if finished:
        _finish(folder, made, scores)
    if export:
        torch.manual_seed(0)
        export_model(create_model(made.student), folder / "export")
    return folder


def _finish(folder: Path, made: Recipe, scores: Mapping[str, Mapping[str, float]]) -> None:
    summary = {
        "name": made.name,
        "model": made.student.model,
        "parameters": {"image": 12_000, "text": 800_000, "total": 812_000},
        "steps": 40,
        "seconds": 75.2,
        "images_per_second": 512.3,
        "processes": 1,
        "skipped_samples": {},
        "nonfinite_steps": 0,
        "metrics": scores,
    }
    (folder / "summary.json").write_text(json.dumps(summary))
