"""The study's table in Markdown and for the terminal: one row a variant, best first."""

from __future__ import annotations

from statistics import mean

from rich import box
from rich.table import Table

from harness.report.comparison import METRICS
from harness.study.config import Variant
from harness.study.results import Findings
from harness.study.score import score, value


def rows(found: Findings, shown: list[str]) -> tuple[list[str], list[list[str]]]:
    """Header and rows; `shown`: metrics with a column of their own."""
    study = found.study
    tuned = study.tune.key.rpartition(".")[2] if study.tune else None
    header = ["", *([tuned] if tuned else []), *map(name, shown), f"mean of {len(study.rank_by)}", "gain"]
    header += ["cosine", "alignment", "published"]
    lines = [_teacher(found, shown, len(header), bool(tuned))] if found.teacher else []
    for variant in found.ranked():
        setting = [f"{found.chosen[variant.name][study.tune.key]:g}"] if study.tune else []
        lines.append(
            [
                variant.label,
                *setting,
                *(spread(found.values(variant, metric)) for metric in shown),
                spread(found.scores(variant)),
                gain(found, variant),
                _number(found.similarity(variant, "cosine")),
                _number(found.similarity(variant, "alignment")),
                "" if variant.published is None else f"{variant.published:.2f}",
            ]
        )
    return header, lines


def markdown(found: Findings) -> str:
    """The table in Markdown, the best mean in bold."""
    study = found.study
    single = [study.headline, *(metric for metric in study.rank_by if metric.endswith("_r1"))]
    header, lines = rows(found, list(dict.fromkeys(single)))
    place = next(number for number, text in enumerate(header) if text.startswith("mean of"))
    first = 1 if found.teacher else 0
    lines[first][place] = f"**{lines[first][place]}**"
    both = [header, ["---", *["---:"] * (len(header) - 1)], *lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in both)


def terminal(found: Findings) -> Table:
    """The same for a terminal of 80 columns, without single metrics."""
    header, lines = rows(found, [])
    table = Table(title=found.study.description or found.study.name, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for text in header:
        table.add_column(text, justify="right" if text else "left")
    for line in lines:
        table.add_row(*line)
    return table


def name(metric: str) -> str:
    """What people call SET/METRIC."""
    return METRICS.get(metric.partition("/")[2], metric)


def spread(values: list[float]) -> str:
    """Mean (least-greatest)."""
    text = f"{mean(values):.1f}"
    return text if len(values) == 1 else f"{text} ({min(values):.1f}-{max(values):.1f})"


def gain(found: Findings, variant: Variant) -> str:
    """Distance from the baseline on the same seeds, and on how many of them the variant leads."""
    base = found.study.baseline
    if variant.name == base.name:
        return ""
    leads = [a - b for a, b in zip(found.scores(variant), found.scores(base), strict=True)]
    text = f"{mean(leads):+.1f}"
    return text if len(leads) == 1 else f"{text}, {sum(lead > 0 for lead in leads)} of {len(leads)}"


def _teacher(found: Findings, shown: list[str], width: int, tuned: bool) -> list[str]:
    assert found.teacher is not None  # the caller asks for its line only then
    metrics = found.teacher["metrics"]
    cells = [f"{value(metrics, metric):.1f}" for metric in shown]
    line = ["teacher", *([""] if tuned else []), *cells, f"{score(metrics, found.study.rank_by):.1f}"]
    return line + [""] * (width - len(line))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
