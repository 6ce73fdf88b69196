"""Record of a training run, read from its folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from harness.config import Recipe, parse_recipe, yamltext
from harness.config.errors import RecipeError
from harness.errors import UserError
from harness.report.page.json_files import JsonLines, read_json_lines, read_json_object
from harness.report.page.result_files import EvalResultFile, read_result_files
from harness.runs import DONE

RECIPE = "recipe.yaml"
_NUMBERS = ("steps", "seconds", "images_per_second")  # numeric keys of summary.json


@dataclass(frozen=True)
class RunRecord:
    """Content of a run folder, finished or not.

    Args:
        folder: folder of the run.
        label: short unique name.
        slot: index of its colour.
        settings: the resolved recipe as plain values.
        recipe: the validated recipe; None if this version cannot read it.
        recipe_text: text of recipe.yaml.
        about: run.json.
        training: training lines of metrics.jsonl, in the order of steps.
        evaluations: lines of evaluations during training.
        summary: summary.json; empty while the run is unfinished.
        results: result files of evaluations, including later ones by `clipkd eval`.
        efficiency: efficiency.json; empty if not measured.
        best: best step by eval.best, with set, metric and value; empty if none.
        skipped_samples: skipped samples of all ranks.
        nonfinite: steps with a non-finite loss or gradient.
        broken: number of unreadable lines by file.
        problems: sentences about unreadable files.
    """

    folder: Path
    label: str
    slot: int
    settings: dict[str, Any] = field(default_factory=dict)
    recipe: Recipe | None = None
    recipe_text: str = ""
    about: dict[str, Any] = field(default_factory=dict)
    training: list[dict[str, Any]] = field(default_factory=list)
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    results: list[EvalResultFile] = field(default_factory=list)
    efficiency: dict[str, Any] = field(default_factory=dict)
    best: dict[str, Any] = field(default_factory=dict)
    skipped_samples: list[dict[str, Any]] = field(default_factory=list)
    nonfinite: list[dict[str, Any]] = field(default_factory=list)
    broken: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def finished(self) -> bool:
        """Whether training has finished."""
        return bool(self.summary)

    @property
    def steps(self) -> int | None:
        """Total number of steps; None for an unfinished run whose recipe counts epochs."""
        return self.summary.get("steps") or self.section("train").get("steps")

    @property
    def steps_done(self) -> int:
        """Last step known to be done."""
        return self.summary.get("steps") or max((line["step"] for line in self.training), default=0)

    def section(self, name: str) -> dict[str, Any]:
        """Section of the recipe; empty if there is none."""
        return _section(self.settings, name)


def read_runs(folders: Sequence[Path]) -> list[RunRecord]:
    """Read run folders.

    Raises:
        UserError: a folder is not a run, or is given twice.
    """
    resolved = [folder.resolve() for folder in folders]
    twice = next((folder for folder, place in zip(folders, resolved, strict=True) if resolved.count(place) > 1), None)
    if twice is not None:
        raise UserError(f"{twice} is given twice; give every run once")
    for folder in folders:
        _check(folder)
    labels = _labels(resolved)
    return [read_run(folder, label, slot) for slot, (folder, label) in enumerate(zip(folders, labels, strict=True))]


def read_run(folder: Path, label: str, slot: int = 0) -> RunRecord:
    """Read one run folder, however incomplete."""
    problems: list[str] = []
    text = (folder / RECIPE).read_text(encoding="utf-8", errors="replace")
    settings, recipe = _recipe(text, folder, problems)
    metrics = read_json_lines(folder / "metrics.jsonl")
    bad, nonfinite = _all_ranks(folder, "skipped_samples"), _all_ranks(folder, "nonfinite")
    steps = [line for line in metrics.objects if isinstance(line.get("step"), int)]
    strange = len(metrics.objects) - len(steps)
    broken = {
        "metrics.jsonl": metrics.broken + strange,
        "skipped_samples.jsonl": bad.broken,
        "nonfinite.jsonl": nonfinite.broken,
    }
    return RunRecord(
        folder=folder,
        label=label,
        slot=slot,
        settings=settings,
        recipe=recipe,
        recipe_text=text,
        about=read_json_object(folder / "run.json", problems),
        training=sorted((line for line in steps if "eval" not in line), key=lambda line: line["step"]),
        evaluations=sorted(
            (line for line in steps if isinstance(line.get("eval"), dict)), key=lambda line: line["step"]
        ),
        summary=_summary(read_json_object(folder / DONE, problems), problems),
        results=read_result_files(folder / "eval", problems),
        efficiency=_efficiency(read_json_object(folder / "efficiency.json", problems), problems),
        best=read_json_object(folder / "checkpoints" / "best.json", problems),
        skipped_samples=bad.objects,
        nonfinite=nonfinite.objects,
        broken={name: count for name, count in broken.items() if count},
        problems=problems,
    )


def _check(folder: Path) -> None:
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; expected a run folder, such as runs/openmoji-clipkd")
    if not (folder / RECIPE).is_file():
        raise UserError(f"{folder} is not a run: there is no {RECIPE} in it; expected a folder made by clipkd train")


def _recipe(text: str, folder: Path, problems: list[str]) -> tuple[dict[str, Any], Recipe | None]:
    try:
        values = yamltext.parse(text, RECIPE).values
    except yaml.YAMLError:
        problems.append(f"{RECIPE} is not valid YAML, so settings are missing and the model is not loaded.")
        return {}, None
    settings = values if isinstance(values, dict) else {}
    try:
        return settings, parse_recipe(text, str(folder / RECIPE))
    except RecipeError as error:
        problems.append(f"This version cannot read the recipe ({error}), so the model is not loaded.")
        return settings, None


def _summary(found: dict[str, Any], problems: list[str]) -> dict[str, Any]:
    """Drop values of an unexpected type."""
    wrong = [key for key in _NUMBERS if not isinstance(found.get(key, 0), int | float)]
    sizes = found.get("parameters", {})
    if not isinstance(sizes, dict) or not all(isinstance(size, int | float) for size in sizes.values()):
        wrong.append("parameters")
    if wrong:
        problems.append(f"{DONE} has values that are not numbers for {', '.join(wrong)}; they are ignored.")
    return {key: value for key, value in found.items() if key not in wrong}


def _efficiency(found: dict[str, Any], problems: list[str]) -> dict[str, Any]:
    if found and not all(isinstance(found.get(tower), dict) for tower in ("image", "text")):
        problems.append("efficiency.json is not in the format of clipkd efficiency and is ignored.")
        return {}
    return found


def _all_ranks(folder: Path, stem: str) -> JsonLines:
    parts = [read_json_lines(path) for path in sorted(folder.glob(f"{stem}*.jsonl"))]
    return JsonLines([line for part in parts for line in part.objects], sum(part.broken for part in parts))


def _labels(places: Sequence[Path]) -> list[str]:
    """Names of the folders, with as many parent folders as make them unique."""
    depth = 1
    while depth < 8:
        labels = ["/".join(place.parts[-depth:]) for place in places]
        if len(set(labels)) == len(labels):
            return labels
        depth += 1
    return [str(place) for place in places]


def _section(settings: dict[str, Any], name: str) -> dict[str, Any]:
    section = settings.get(name)
    return section if isinstance(section, dict) else {}
