"""Overview section: what each run is, its progress and its results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.report.page.blocks import Cell, PageSection, Row, Table
from harness.report.page.formatting import NONE, duration, millions, percent, whole
from harness.report.page.records import RunRecord
from harness.report.page.scores import Scores, headline, is_number, metric_label


def overview_section(runs: Sequence[RunRecord], scores: Mapping[str, Scores]) -> PageSection:
    """Overview section, one column per run."""
    rows: list[Row] = [
        ["status", *(status(run) for run in runs)],
        ["description", *(_text(run.settings.get("description") or None) for run in runs)],
        ["student", *(_text(run.section("student").get("model")) for run in runs)],
        ["teacher", *(_teachers(run.settings) for run in runs)],
        ["loss", *(_loss(run) for run in runs)],
        ["training", *(_training(run) for run in runs)],
        *(_score_row(name, metric, runs, scores) for name, metric in headline(scores)),
        ["image tower", *(millions(_parameters(run).get("image")) for run in runs)],
        ["text tower", *(millions(_parameters(run).get("text")) for run in runs)],
        ["training time", *(duration(run.summary.get("seconds") or _last(run, "seconds")) for run in runs)],
        ["images/s", *(whole(run.summary.get("images_per_second") or _last(run, "images_per_second")) for run in runs)],
    ]
    if any(run.best for run in runs):
        rows.append(["best step", *(_best(run) for run in runs)])
    table = Table(
        "Accuracy in percent on held-out sets; parameters in millions.", ["", *_labels(runs)], rows, wrap=True
    )
    return PageSection("overview", "Overview", [table])


def status(run: RunRecord) -> str:
    """Status of a run: finished, stopped, or its progress."""
    if run.finished:
        return "finished"
    reached = f"step {run.steps_done:,}" + (f" of {run.steps:,}" if run.steps else "")
    if (run.folder / "stopped").exists():
        return f"stopped by SIGTERM or SIGHUP at {reached}"
    return f"unfinished, {reached}"


def _score_row(name: str, metric: str, runs: Sequence[RunRecord], scores: Mapping[str, Scores]) -> list[str | Cell]:
    values = [scores[run.label].get(name, {}).get(metric) for run in runs]
    known = [value for value in values if value is not None]
    best = max(known) if len(known) > 1 else None
    return [f"{name} {metric_label(metric)}", *(Cell(percent(v), best=v is not None and v == best) for v in values)]


def _best(run: RunRecord) -> str:
    if not run.best:
        return NONE
    value = run.best.get("value")
    shown = percent(value) if is_number(value) else NONE
    return f"{run.best.get('step')}: {run.best.get('set')} {metric_label(str(run.best.get('metric')))} {shown}"


def _teachers(settings: Mapping[str, Any]) -> str:
    several = settings.get("teachers") or ()
    given = [*several, settings.get("teacher")] if isinstance(several, list | tuple) else [settings.get("teacher")]
    names = [_text(one.get("model")) for one in given if isinstance(one, dict)]
    return " + ".join(names) or "none"


def _loss(run: RunRecord) -> str:
    weights = run.section("loss").get("weights")
    if not isinstance(weights, dict):
        return NONE
    terms = " + ".join(
        f"{weight:g} {term}" for term, weight in weights.items() if isinstance(weight, int | float) and weight
    )
    variant = run.section("loss").get("variant")
    return terms + (f" ({variant})" if variant not in (None, "paper") else "")


def _training(run: RunRecord) -> str:
    train = run.section("train")
    steps = run.steps
    length = f"{steps:,} steps" if steps else f"{train.get('epochs')} epochs"
    batch = train.get("batch_size")
    return f"{length} of {batch:,} pairs" if isinstance(batch, int) else length


def _parameters(run: RunRecord) -> dict[str, Any]:
    found = run.summary.get("parameters")
    return found if isinstance(found, dict) else {}


def _last(run: RunRecord, key: str) -> float | None:
    found = run.training[-1].get(key) if run.training else None
    return found if is_number(found) else None


def _labels(runs: Sequence[RunRecord]) -> list[str]:
    return [run.label for run in runs]


def _text(value: Any) -> str:
    return NONE if value is None else str(value)
