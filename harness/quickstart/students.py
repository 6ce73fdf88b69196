"""Quickstart stages of one model: training and evaluation."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from harness.config import EvalConfig, Recipe, dump_recipe, load_recipe
from harness.errors import UserError
from harness.evaluate import evaluate
from harness.metrics import read_metrics
from harness.model_folders import find_folder
from harness.models import LoadedModel, load_model, pick_device
from harness.quickstart.stages import Stages, fingerprint_code, fingerprint_model
from harness.records.reading import Schema, Text, read_values
from harness.report import RunResult
from harness.runs import git_commit
from harness.train import train
from harness.way_on import AGAIN, WayOn, going_on

# The recipes are the shipped ones, and a stage that is not finished starts over.
WAY_ON = WayOn(
    AGAIN.resume,
    AGAIN.resume,
    "train its recipe by itself with `clipkd train`, --set train.on_nonfinite=skip and --resume",
)


@dataclass(frozen=True)
class QuickstartContext:
    """Inputs that all stages share: output folder, data and software."""

    out: Path
    stages: Stages
    data: str  # fingerprint

    def inputs(self, **own: Any) -> dict[str, Any]:
        """Inputs of a stage: the shared ones and its own."""
        return {"data": self.data, "code": fingerprint_code(), "torch": torch.__version__, **own}


def quickstart_recipe(name: str, data: Path, seed: int) -> Recipe:
    """Shipped OpenMoji recipe for a seed and a data folder."""
    if data.name != "openmoji":
        raise UserError(f"the data folder {data} must be named openmoji, as the recipes expect; rename it")
    return load_recipe(f"openmoji/{name}", [f"seed={seed}"], data_root=data.parent)


def train_student(context: QuickstartContext, name: str, recipe: Recipe, teacher: str) -> tuple[dict[str, Any], Path]:
    """Train without the final evaluation: `evaluate_model` does it for all models alike, from their exports.

    Args:
        context: inputs that all stages share.
        name: name of the student.
        recipe: its recipe, with the seed.
        teacher: fingerprint of the teacher's weights; empty without a teacher.

    Returns:
        seconds, images_per_second, parameters and git_commit of the training; and the run folder.
    """
    folder = context.out / f"seed-{recipe.seed}" / name
    bare = recipe.model_copy(update={"eval": EvalConfig()})

    def action() -> dict[str, Any]:
        with going_on(WAY_ON):
            summary = train(bare, folder, overwrite=True)
        record = {key: summary[key] for key in ("seconds", "images_per_second", "parameters")}
        return {**record, "git_commit": git_commit()}

    inputs = context.inputs(recipe=dump_recipe(bare), teacher=teacher)
    return context.stages.run(f"train-{name}-seed-{recipe.seed}", inputs, folder, action), folder


class _Training(Schema):
    """What is recorded of a training, as far as it is."""

    seed: int | None = None
    seconds: float | None = None
    images_per_second: float | None = None
    git_commit: Text | None = None


def training_record(spec: str) -> dict[str, Any]:
    """Training time and speed of a pretrained model, as far as they are recorded in its folder."""
    folder = find_folder(spec)
    records = [folder / "metrics.json", folder.parent / "summary.json"] if folder is not None else []
    record: dict[str, Any] = next((read_values(path, _Training) for path in records if path.is_file()), {})
    return {key: record[key] for key in ("seed", "seconds", "images_per_second", "git_commit") if key in record}


def evaluate_model(
    context: QuickstartContext, name: str, loaded: LoadedModel, recipe: Recipe
) -> dict[str, dict[str, float]]:
    """Metrics of a model on the recipe's sets; its clip_benchmark files go to `eval/<name>/`."""
    sets = recipe.eval.sets
    folder = context.out / "eval" / name
    # Formats of images decide on an error or none, and not on a number.
    described = [item.model_dump(exclude={"image_formats"}) for item in sets]
    inputs = context.inputs(model=fingerprint_model(loaded.model), sets=described)
    device = pick_device(recipe.train.device)

    def action() -> dict[str, Any]:
        return evaluate(loaded, sets, batch_size=recipe.eval.batch_size, device=device, out=folder)

    return context.stages.run(f"evaluate-{name}", inputs, folder, action)


def train_and_evaluate(
    context: QuickstartContext, name: str, recipe: Recipe, teacher: str
) -> tuple[RunResult, dict[str, int], list[Any]]:
    """Train and evaluate a student; returns the result, the parameter counts and the lines of metrics.jsonl."""
    trained, folder = train_student(context, name, recipe, teacher)
    metrics = evaluate_model(context, f"{name}-seed-{recipe.seed}", load_model(f"run:{folder}"), recipe)
    parameters = trained.pop("parameters")
    return RunResult(metrics, recipe.seed, **trained), parameters, read_metrics(folder / "metrics.jsonl")
