"""Section on accuracy: metrics of every run and its teacher, and their curves over training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.report.page.analysis import ModelAnalysis
from harness.report.page.blocks import Block, Cell, Charts, Note, PageSection, Row, Table
from harness.report.page.chart import Chart, ReferenceLine
from harness.report.page.formatting import NONE, difference, percent
from harness.report.page.line_chart import legend, line_chart
from harness.report.page.published import IMAGENET, published_blocks
from harness.report.page.records import RunRecord
from harness.report.page.scores import Scores, headline, is_number, metric_label, numbers, score_columns
from harness.report.page.teachers import teachers_by_run

# Metrics with curves; the tables show all.
DRAWN = ("top1", "i2t_r1", "t2i_r1", "acc", "map")
MOST_CHARTS = 8


def accuracy_section(
    runs: Sequence[RunRecord], scores: Mapping[str, Scores], teachers: Mapping[str, Scores], found: ModelAnalysis | None
) -> PageSection:
    """The section of accuracy.

    Args:
        runs: the runs.
        scores: scores of each run's student, by label.
        teachers: scores of each teacher, by label.
        found: analysis of the models; None if they were not loaded.
    """
    blocks: list[Block] = []
    for run in runs:
        if not scores[run.label]:
            blocks.append(Note(f"{run.label} has no results: {_why_none(run)}.", "missing"))
        elif not run.finished:
            blocks.append(Note(f"{run.label} is unfinished: its numbers are from the last evaluation during training."))
    if any(scores.values()) or any(teachers.values()):
        blocks.append(_table(runs, scores, teachers))
    blocks += [Note(text, "missing") for part in ("teacher", "sets") for text in _missing(found, part)]
    blocks += _against_teachers(runs, scores, teachers)
    blocks += published_blocks(runs, scores, teachers)
    blocks += _over_time(runs, scores, teachers)
    return PageSection("accuracy", "Accuracy", blocks)


def _why_none(run: RunRecord) -> str:
    if run.recipe is not None and not run.recipe.eval.sets and not run.recipe.eval.suite:
        return "its recipe has no evaluation sets"
    return "it was not evaluated" if run.finished else "it is unfinished and was not evaluated during training"


def _missing(found: ModelAnalysis | None, part: str) -> list[str]:
    return found.missing.get(part, []) if found else []


def _table(runs: Sequence[RunRecord], scores: Mapping[str, Scores], teachers: Mapping[str, Scores]) -> Table:
    everyone = {
        **{f"teacher {name}": one for name, one in teachers.items()},
        **{r.label: scores[r.label] for r in runs},
    }
    rows: list[Row] = []
    for name, metric in score_columns(everyone):
        values = {label: one.get(name, {}).get(metric) for label, one in everyone.items()}
        known = [value for run in runs if (value := values[run.label]) is not None]
        best = max(known) if len(known) > 1 else None
        cells = [
            Cell(percent(value), best=label in scores and value is not None and value == best)
            for label, value in values.items()
        ]
        rows.append([f"{name} {metric_label(metric)}", *cells])
    caption = "Percent on held-out sets; i2t: find an image's text, t2i: a text's image."
    if len(runs) > 1:
        caption += " Bold: the best student."
    return Table(caption, ["set and metric", *everyone], rows)


def _against_teachers(
    runs: Sequence[RunRecord], scores: Mapping[str, Scores], teachers: Mapping[str, Scores]
) -> list[Block]:
    taught = teachers_by_run(runs)
    couples = [(run, one.label) for run in runs for one in taught[run.label] if teachers.get(one.label)]
    metrics = [
        (name, metric)
        for name, metric in headline({run.label: scores[run.label] for run, _ in couples})
        if any(metric in teachers[teacher].get(name, {}) for _, teacher in couples)
    ]
    if not metrics:
        return []
    rows = [
        [
            f"{name} {metric_label(metric)}",
            *(
                _gap(scores[r.label].get(name, {}).get(metric), teachers[t].get(name, {}).get(metric))
                for r, t in couples
            ),
        ]
        for name, metric in metrics
    ]
    several = len({teacher for _, teacher in couples}) > 1
    header = [f"{run.label} and {teacher}" if several else run.label for run, teacher in couples]
    caption = "Student minus teacher in points; in brackets the student's value relative to the teacher's."
    return [Table(caption, ["set and metric", *header], rows)]


def _gap(student: float | None, teacher: float | None) -> str:
    if student is None or not teacher:
        return NONE
    return f"{difference(student - teacher)} ({100 * student / teacher:.0f} %)"


def _over_time(runs: Sequence[RunRecord], scores: Mapping[str, Scores], teachers: Mapping[str, Scores]) -> list[Block]:
    """Curves of metrics, for runs evaluated during training."""
    measured = [run for run in runs if run.evaluations]
    if not measured:
        return [Note("No run was evaluated during training (recipe key eval.every), so there are no accuracy curves.")]
    seen = {run.label: _during_training(run) for run in measured}
    drawn = [column for column in score_columns(seen) if column[1] in DRAWN]
    charts = [_curve(name, metric, measured, scores, teachers) for name, metric in drawn[:MOST_CHARTS]]
    blocks: list[Block] = [Charts(charts, legend(measured))]
    if len(drawn) > MOST_CHARTS:
        blocks.append(Note(f"Not drawn: {len(drawn) - MOST_CHARTS} more metrics; metrics.jsonl has them."))
    return blocks


def _during_training(run: RunRecord) -> Scores:
    """Last value of each metric that was evaluated during training."""
    merged: Scores = {}
    for line in run.evaluations:
        for name, values in numbers(line["eval"]).items():
            merged.setdefault(name, {}).update(values)
    return merged


def _curve(
    name: str, metric: str, runs: Sequence[RunRecord], scores: Mapping[str, Scores], teachers: Mapping[str, Scores]
) -> Chart:
    points: dict[str, list[tuple[float, float]]] = {}
    for run in runs:
        found = [
            (line["step"], line["eval"].get(name, {}).get(metric)) for line in run.evaluations if name in line["eval"]
        ]
        points[run.label] = [(step, value) for step, value in found if is_number(value)]
        end, last = run.summary.get("steps"), scores[run.label].get(name, {}).get(metric)
        if end and last is not None and (not points[run.label] or points[run.label][-1][0] < end):
            points[run.label].append((end, last))
    reference_lines = [
        ReferenceLine(f"teacher {t}", one[name][metric]) for t, one in teachers.items() if metric in one.get(name, {})
    ]
    if metric == "top1" and name in IMAGENET:
        values = {run.recipe.published.top1 for run in runs if run.recipe and run.recipe.published}
        reference_lines += [ReferenceLine("published", value) for value in sorted(v for v in values if v is not None)]
    title = f"{name} {metric_label(metric)}, percent"
    return line_chart(f"eval-{name}-{metric}", title, runs, points, reference_lines=reference_lines)
