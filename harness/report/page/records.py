"""A training run as its folder tells it."""

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
from harness.report.page.result_files import ResultFile, read_result_files
from harness.runs import DONE

RECIPE = "recipe.yaml"
_NUMBERS = ("steps", "seconds", "images_per_second")  # of summary.json, shown as such


@dataclass(frozen=True)
class RunRecord:
    """What is known of a run, finished or not.

    Args:
        folder: of the run.
        label: short name, different from the other runs'.
        slot: its colour's number.
        settings: the resolved recipe as plain values.
        recipe: the same, checked; None where this version cannot read it.
        recipe_text: recipe.yaml as it stands.
        about: run.json.
        training: lines of metrics.jsonl about training, in the order of steps.
        evaluations: the lines about evaluations during training.
        summary: summary.json; empty while the run is unfinished.
        results: of evaluations, also by `clipkd eval` later.
        efficiency: efficiency.json; empty where it was not measured.
        best: the best step that eval.every measured, with set, metric and value; empty where none is kept.
        bad_samples: what was skipped, all processes together.
        nonfinite: steps whose loss or gradient was not finite.
        broken: how many lines of which file are no JSON.
        problems: sentences about files that could not be read.
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
    results: list[ResultFile] = field(default_factory=list)
    efficiency: dict[str, Any] = field(default_factory=dict)
    best: dict[str, Any] = field(default_factory=dict)
    bad_samples: list[dict[str, Any]] = field(default_factory=list)
    nonfinite: list[dict[str, Any]] = field(default_factory=list)
    broken: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def finished(self) -> bool:
        """Whether it has come to its end."""
        return bool(self.summary)

    @property
    def steps(self) -> int | None:
        """How many steps it has, or is to have; None where the recipe counts epochs and the run is unfinished."""
        return self.summary.get("steps") or self.section("train").get("steps")

    @property
    def steps_done(self) -> int:
        """The last step that is known to be done."""
        return self.summary.get("steps") or max((line["step"] for line in self.training), default=0)

    def section(self, name: str) -> dict[str, Any]:
        """A section of the recipe; empty where there is none."""
        return _section(self.settings, name)


def read_runs(folders: Sequence[Path]) -> list[RunRecord]:
    """Read run folders.

    Raises:
        UserError: one is no run folder, or is given twice.
    """
    places = [folder.resolve() for folder in folders]
    twice = next((folder for folder, place in zip(folders, places, strict=True) if places.count(place) > 1), None)
    if twice is not None:
        raise UserError(f"{twice} is given twice; name every run once")
    for folder in folders:
        _check(folder)
    labels = _labels(places)
    return [read_run(folder, label, slot) for slot, (folder, label) in enumerate(zip(folders, labels, strict=True))]


def read_run(folder: Path, label: str, slot: int = 0) -> RunRecord:
    """Read one run folder, whatever of it there is."""
    problems: list[str] = []
    text = (folder / RECIPE).read_text(encoding="utf-8", errors="replace")
    settings, recipe = _recipe(text, folder, problems)
    metrics = read_json_lines(folder / "metrics.jsonl")
    bad, nonfinite = _of_all_processes(folder, "bad_samples"), _of_all_processes(folder, "nonfinite")
    steps = [line for line in metrics.objects if isinstance(line.get("step"), int)]
    strange = len(metrics.objects) - len(steps)
    broken = {
        "metrics.jsonl": metrics.broken + strange,
        "bad_samples.jsonl": bad.broken,
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
        bad_samples=bad.objects,
        nonfinite=nonfinite.objects,
        broken={name: count for name, count in broken.items() if count},
        problems=problems,
    )


def _check(folder: Path) -> None:
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; expected the folder of a run, such as runs/openmoji-clipkd")
    if not (folder / RECIPE).is_file():
        raise UserError(f"{folder} is no run: there is no {RECIPE} in it; expected a folder that clipkd train has made")


def _recipe(text: str, folder: Path, problems: list[str]) -> tuple[dict[str, Any], Recipe | None]:
    try:
        values = yamltext.parse(text, RECIPE).values
    except yaml.YAMLError:
        problems.append(f"{RECIPE} is no valid YAML, so settings are left out and nothing is computed from the model.")
        return {}, None
    settings = values if isinstance(values, dict) else {}
    try:
        return settings, parse_recipe(text, str(folder / RECIPE))
    except RecipeError as error:
        problems.append(f"This version does not read the recipe ({error}), so nothing is computed from the model.")
        return settings, None


def _summary(found: dict[str, Any], problems: list[str]) -> dict[str, Any]:
    """Without values of another type than this version writes."""
    wrong = [key for key in _NUMBERS if not isinstance(found.get(key, 0), int | float)]
    sizes = found.get("parameters", {})
    if not isinstance(sizes, dict) or not all(isinstance(size, int | float) for size in sizes.values()):
        wrong.append("parameters")
    if wrong:
        problems.append(f"{DONE} has something else than numbers as {', '.join(wrong)}, which is left out.")
    return {key: value for key, value in found.items() if key not in wrong}


def _efficiency(found: dict[str, Any], problems: list[str]) -> dict[str, Any]:
    if found and not all(isinstance(found.get(tower), dict) for tower in ("image", "text")):
        problems.append("efficiency.json does not hold what clipkd efficiency writes and is left out.")
        return {}
    return found


def _of_all_processes(folder: Path, stem: str) -> JsonLines:
    parts = [read_json_lines(path) for path in sorted(folder.glob(f"{stem}*.jsonl"))]
    return JsonLines([line for part in parts for line in part.objects], sum(part.broken for part in parts))


def _labels(places: Sequence[Path]) -> list[str]:
    """The folders' names, with as much of what is above them as tells them apart."""
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
