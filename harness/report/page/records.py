"""Record of a training run, read from its folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from harness.bidi import isolated
from harness.config import Recipe, parse_recipe, yamltext
from harness.config.errors import RecipeError
from harness.errors import UserError
from harness.files import Unreadable
from harness.metrics import line_key
from harness.privacy import below_home
from harness.records.lines import Lines, read_lines
from harness.records.reading import Schema, read_noting, read_values
from harness.records.run_folder import About, Best, Efficiency, MetricsLine, NonFiniteLine, RunSummary, SkippedLine
from harness.report.page.result_files import EvalResultFile, read_result_files
from harness.runs import DONE

RECIPE = "recipe.yaml"


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
    metrics = _lines(folder, "metrics", MetricsLine, problems, key=line_key)
    skipped = _lines(folder, "skipped_samples", SkippedLine, problems)
    nonfinite = _lines(folder, "nonfinite", NonFiniteLine, problems)
    found = {"metrics.jsonl": metrics, "skipped_samples.jsonl": skipped, "nonfinite.jsonl": nonfinite}
    steps = sorted(metrics.values, key=lambda line: line["step"])
    return RunRecord(
        folder=folder,
        label=label,
        slot=slot,
        settings=settings,
        recipe=recipe,
        recipe_text=text,
        about=read_noting(folder / "run.json", About, problems),
        training=[line for line in steps if "eval" not in line],
        evaluations=[line for line in steps if line.get("eval") is not None],
        summary=read_noting(folder / DONE, RunSummary, problems),
        results=read_result_files(folder / "eval", problems),
        efficiency=_efficiency(folder, problems),
        best=read_noting(folder / "checkpoints" / "best.json", Best, problems),
        skipped_samples=skipped.values,
        nonfinite=nonfinite.values,
        broken={name: len(lines.bad) for name, lines in found.items() if lines.bad},
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


def _efficiency(folder: Path, problems: list[str]) -> dict[str, Any]:
    """All of the file or nothing: its numbers are compared with each other."""
    path = folder / "efficiency.json"
    try:
        return read_values(path, Efficiency) if path.is_file() else {}
    except Unreadable as error:
        problems.append(f"efficiency.json is not in the format of clipkd efficiency ({error.reason}) and is ignored.")
        return {}


def _lines(folder: Path, stem: str, schema: type[Schema], problems: list[str], **options: Any) -> Lines:
    """The lines of all ranks' files; what is wrong with them is said once."""
    total = Lines()
    for path in sorted(folder.glob(f"{stem}*.jsonl")):
        try:
            found = read_lines(path, schema, tolerant=True, **options)
        except Unreadable as error:
            problems.append(f"{path.name} cannot be read ({error.reason}) and is ignored.")
            continue
        if found.bad:
            problems.append(f"{path.name} has unreadable lines, which are ignored: {found.problem()}.")
        if found.ignored:
            more = f" (and {len(found.ignored) - 1} more)" if len(found.ignored) > 1 else ""
            problems.append(f"{path.name}, {found.ignored[0]}{more}.")
        total = Lines(total.good + found.good, total.bad + found.bad)
    return total


def _labels(places: Sequence[Path]) -> list[str]:
    """Names of the folders, with as many parent folders below anybody's home as make them unique, else a number."""
    parts = [below_home(place) for place in places]
    for depth in range(1, 8):
        labels = [isolated("/".join(one[-depth:])) for one in parts]
        if len(set(labels)) == len(labels):
            return labels
    return [f"{isolated(one[-1])} ({number})" for number, one in enumerate(parts, start=1)]


def _section(settings: dict[str, Any], name: str) -> dict[str, Any]:
    section = settings.get(name)
    return section if isinstance(section, dict) else {}
