"""Results table of a study, in Markdown and for the terminal: one row per variant, best first."""

from __future__ import annotations

from statistics import mean

from rich import box
from rich.table import Table

from harness.report.comparison import METRICS
from harness.study.config import Variant
from harness.study.results import StudyResults, mean_score, metric_value


def table_rows(results: StudyResults, metrics: list[str]) -> tuple[list[str], list[list[str]]]:
    """Header and rows; each of `metrics` gets a column of its own."""
    study = results.study
    tuned = study.tune.key.rpartition(".")[2] if study.tune else None
    header = ["", *([tuned] if tuned else []), *map(metric_label, metrics), f"mean of {len(study.rank_by)}", "gain"]
    header += ["cosine", "alignment", "published"]
    rows = [_teacher_row(results, metrics, len(header), bool(tuned))] if results.teacher else []
    for variant in results.ranked():
        setting = [f"{results.chosen[variant.name][study.tune.key]:g}"] if study.tune else []
        rows.append(
            [
                variant.label,
                *setting,
                *(mean_and_range(results.values(variant, metric)) for metric in metrics),
                mean_and_range(results.scores(variant)),
                gain_over_baseline(results, variant),
                _number(results.similarity(variant, "cosine")),
                _number(results.similarity(variant, "alignment")),
                "" if variant.published is None else f"{variant.published:.2f}",
            ]
        )
    return header, rows


def markdown_table(results: StudyResults) -> str:
    """The table in Markdown, the best mean in bold."""
    study = results.study
    single = [study.headline, *(metric for metric in study.rank_by if metric.endswith("_r1"))]
    header, rows = table_rows(results, list(dict.fromkeys(single)))
    column = next(number for number, text in enumerate(header) if text.startswith("mean of"))
    first = 1 if results.teacher else 0
    rows[first][column] = f"**{rows[first][column]}**"
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def terminal_table(results: StudyResults) -> Table:
    """The table for a terminal of 80 columns, without single metrics."""
    header, rows = table_rows(results, [])
    table = Table(title=results.study.description or results.study.name, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for text in header:
        table.add_column(text, justify="right" if text else "left")
    for row in rows:
        table.add_row(*row)
    return table


def metric_label(metric: str) -> str:
    """The usual name of SET/METRIC, such as "i2t R@1"."""
    return METRICS.get(metric.partition("/")[2], metric)


def mean_and_range(values: list[float]) -> str:
    """Mean (min-max)."""
    text = f"{mean(values):.1f}"
    return text if len(values) == 1 else f"{text} ({min(values):.1f}-{max(values):.1f})"


def gain_over_baseline(results: StudyResults, variant: Variant) -> str:
    """Mean difference from the baseline on the same seeds, and on how many of them the variant wins."""
    base = results.study.baseline
    if variant.name == base.name:
        return ""
    gains = [a - b for a, b in zip(results.scores(variant), results.scores(base), strict=True)]
    text = f"{mean(gains):+.1f}"
    return text if len(gains) == 1 else f"{text}, {sum(gain > 0 for gain in gains)} of {len(gains)}"


def _teacher_row(results: StudyResults, metrics: list[str], width: int, is_tuned: bool) -> list[str]:
    assert results.teacher is not None  # the caller has checked
    measured = results.teacher["metrics"]
    cells = [f"{metric_value(measured, metric):.1f}" for metric in metrics]
    score = f"{mean_score(measured, results.study.rank_by):.1f}"
    row = ["teacher", *([""] if is_tuned else []), *cells, score]
    return row + [""] * (width - len(row))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
