"""`clipkd bench train` from its options to its last line."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console

from harness.bench.losses.origin import origin
from harness.bench.losses.rows import Origin
from harness.bench.train.batches import LIVE, SYNTHETIC, adapt
from harness.bench.train.interleaved import RoundPlan, measure
from harness.bench.train.open_clip_trainer import OBJECTIVE, TRAINERS, unavailable
from harness.bench.train.rows import append_rows, check_file
from harness.bench.train.terminal import show
from harness.config import EvalConfig, Recipe
from harness.errors import UserError
from harness.models import create_model
from harness.train.distributed import init_distributed

# Batches that each worker of a DataLoader has ready.
AHEAD = 2


def bench(
    recipe: Recipe,
    kind: str,
    baselines: Sequence[str],
    plan: RoundPlan,
    thread_count: int | None,
    out: Path,
    source: Origin | None = None,
) -> None:
    """Measure, write and show; ``source`` is what the rows say of where they come from, None: here and now.

    Raises:
        UserError: for baselines that do not exist or cannot train this pair, and for an ``out`` of something else;
            before anything is measured.
    """
    check_file(out)
    _check(recipe, baselines, kind)
    count = thread_count or recipe.train.threads
    if count:
        torch.set_num_threads(count)
    torch.set_flush_denormal(recipe.train.flush_denormal)
    with (
        init_distributed(recipe.train.device) as (distributed, device),
        tempfile.TemporaryDirectory(prefix="clipkd-bench-") as name,
    ):
        if distributed.world_size > 1:
            raise UserError("clipkd bench train times one process; start it without torchrun")
        folder = Path(name)
        ahead = 0 if kind == SYNTHETIC else AHEAD * recipe.data.workers + 1
        # Workers load ahead while another trainer runs: those batches must be used up before a step counts.
        plan = replace(plan, warm_up=max(plan.warm_up, ahead))
        adapted = adapt(_prepared(recipe, plan, compared=bool(baselines)), kind, folder, plan.all_steps + ahead)
        rows = measure(adapted, kind, baselines, plan, device, folder, source or origin(device.type))
    append_rows(out, rows)
    console = Console()
    show(rows, console)
    console.print(f"{out}: {len(rows)} rows written", markup=False, highlight=False, soft_wrap=True)


def _check(recipe: Recipe, baselines: Sequence[str], kind: str) -> None:
    unknown = [name for name in baselines if name not in TRAINERS]
    if unknown:
        raise UserError(f"--baselines {unknown[0]} is unknown; known: {', '.join(TRAINERS)}")
    if baselines and kind == LIVE:
        raise UserError(
            "--baselines compares on the same data, which is --data synthetic (batches that stay on the device) or "
            "--data decode (JPEG files); the recipe's own data is not read by others"
        )
    if baselines:
        models = [create_model(config) for config in (recipe.student, *recipe.all_teachers)]
        if reason := unavailable(recipe.train.accum_freq, *models):
            raise UserError(f"--baselines {baselines[0]} cannot be used here: {reason}")


def _prepared(recipe: Recipe, plan: RoundPlan, compared: bool) -> Recipe:
    """As long as the measurement needs, without evaluation; compared with others, with what they can do too."""
    steps = max(recipe.schedule.warmup_steps, recipe.train.steps or 0, plan.all_steps)
    train = recipe.train.model_copy(update={"steps": steps, "epochs": None})
    update = {"train": train, "eval": EvalConfig()}
    if compared:
        update["loss"] = recipe.loss.model_copy(update={"weights": OBJECTIVE})
        if not recipe.teacher_cache.use:
            # open_clip's own views of images: a crop of at least 0.9 of the area, nothing else.
            seen = {"crop": "random_resized", "crop_scale": (0.9, 1.0), "augment": None, "image_size": None}
            update["data"] = recipe.data.model_copy(update=seen)
    return recipe.model_copy(update=update)
