"""Quickstart pipeline: data, training, evaluation, table and figure."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.config import Recipe
from harness.data.openmoji import ATTRIBUTION, build
from harness.errors import UserError
from harness.files import write_json, write_text
from harness.models import LoadedModel, load_model, pick_device
from harness.privacy import hide_in_command
from harness.quickstart.stages import Stages, fingerprint_file, fingerprint_model
from harness.quickstart.students import (
    QuickstartContext,
    evaluate_model,
    quickstart_recipe,
    train_and_evaluate,
    training_record,
)
from harness.report import ComparedModel, RunResult, markdown, plot, print_tables, summarize
from harness.runs import command_line, environment

logger = logging.getLogger(__name__)

LABELS = {"teacher": "teacher", "baseline": "baseline", "clipkd": "CLIP-KD"}
TITLE = "OpenMoji: a small CLIP without and with CLIP-KD"


def run_quickstart(out: Path, data: Path, seeds: Sequence[int] = (0,)) -> dict[str, Any]:
    """Build the data, evaluate the teacher, train and evaluate both students for each seed, and report.

    Finished stages with the same inputs are skipped. Safe to interrupt: run it again to resume.

    Args:
        out: output folder of everything but the data.
        data: folder of the dataset, built on first use.
        seeds: each student is trained once per seed; for several seeds, tables show mean and range.

    Returns:
        Content of `out/summary.json`.

    Raises:
        UserError: for anything the user can fix.
    """
    out, data = Path(out), Path(data)
    if not seeds or len(set(seeds)) != len(seeds):
        raise UserError(f"seeds must be different whole numbers, at least one; got {list(seeds)}")
    recipes = {(name, seed): quickstart_recipe(name, data, seed) for seed in seeds for name in ("baseline", "clipkd")}
    stages = Stages(out)
    with stages.locked():
        return _run(out, data, recipes, stages)


def _run(out: Path, data: Path, recipes: dict[tuple[str, int], Recipe], stages: Stages) -> dict[str, Any]:
    logger.info("data: %s, built on first use; %s", data, ATTRIBUTION)
    build(data)
    context = QuickstartContext(out, stages, fingerprint_file(data / "dataset.json"))
    models, curves = _models(context, recipes)
    return _report(out, data, models, curves, recipes)


def _models(
    context: QuickstartContext, recipes: dict[tuple[str, int], Recipe]
) -> tuple[list[ComparedModel], dict[str, Any]]:
    """Evaluate every model; also returns the loss curves of the first seed's students."""
    distilled, config = next((recipe, recipe.teacher) for recipe in recipes.values() if recipe.teacher)
    teacher = load_model(config.model, config.pretrained)
    weights = fingerprint_model(teacher.model)
    models = [_teacher_model(context, teacher, distilled, config.model)]
    curves: dict[str, Any] = {}
    made = {
        (name, seed): train_and_evaluate(context, name, recipe, weights if recipe.teacher else "")
        for (name, seed), recipe in recipes.items()
    }
    for name in dict.fromkeys(name for name, _ in made):
        mine = [result for (other, _), result in made.items() if other == name]
        models.append(ComparedModel(name, LABELS[name], mine[0][1], tuple(result[0] for result in mine)))
        curves[LABELS[name]] = mine[0][2]
    return models, curves


def _teacher_model(context: QuickstartContext, teacher: LoadedModel, recipe: Recipe, spec: str) -> ComparedModel:
    metrics = evaluate_model(context, "teacher", teacher, recipe)
    run = RunResult(metrics, **training_record(spec))
    return ComparedModel("teacher", LABELS["teacher"], teacher.parameters, (run,), is_teacher=True)


def _report(
    out: Path, data: Path, models: list[ComparedModel], curves: dict[str, Any], recipes: dict[tuple[str, int], Recipe]
) -> dict[str, Any]:
    """Write figure, table and summary; always rewritten, which takes a second, and atomically."""
    device = pick_device(next(iter(recipes.values())).train.device)
    seeds = list(dict.fromkeys(seed for _, seed in recipes))
    about = {"command": hide_in_command(command_line()), "seeds": seeds, **environment(device)}
    summary = summarize(models, about)
    plot(curves, models, out / "quickstart.png", TITLE)
    write_text(out / "table.md", f"{markdown(models)}\n{_provenance(about)}\n")
    write_json(out / "summary.json", summary)
    print_tables(models)
    for what, where in {
        "figure": "quickstart.png",
        "numbers": "summary.json",
        "table": "table.md",
        "CLIP-KD student, an open_clip folder": f"seed-{seeds[0]}/clipkd/export",
    }.items():
        logger.info("%s: %s", what, out / where)
    logger.info("data: %s", data)
    return summary


def _provenance(about: dict[str, Any]) -> str:
    """Line that says how the table was made: command, device, date, commit and versions."""
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items() if number)
    commit = about["git_commit"] or "no checkout"
    return (
        f"Percent; bold = best student. `{about['command']}`, seeds {about['seeds']}, {about['device']}, "
        f"{about['date'][:10]}, commit {commit}; {versions}."
    )
