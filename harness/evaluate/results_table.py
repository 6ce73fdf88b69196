"""Table of evaluation results, at most 80 columns wide: one row per metric, one column per model."""

from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console, Group
from rich.table import Table

from harness.evaluate.results import Metrics

WIDTH = 80
NAMES = {
    "top1": "top-1",
    "top5": "top-5",
    "mean_recall": "mean per-class recall",
    "map": "mean average precision",
    **{f"{way}_r{k}": f"{way} R@{k}" for way in ("i2t", "t2i") for k in (1, 5, 10)},
    "acc": "accuracy",
    "image_acc": "image accuracy",
    "text_acc": "text accuracy",
}
NOTE = "percent; i2t: find an image's text, t2i: a text's image"
_LABEL = 13  # maximal width of a model's name among several, before it wraps

Results = Mapping[str, Mapping[str, Metrics]]  # by model, then by set


def print_results(results: Results, console: Console | None = None) -> None:
    """Print the metrics of each set and model; a dash where a model has none."""
    (console or Console()).print(results_table(results))


def results_table(results: Results) -> Group:
    """Tables one below the other where there are more models than fit side by side."""
    rows = _rows(results)
    first = max([len("set"), *(len(name) for name, _ in rows)])
    second = max([len("metric"), *(len(NAMES[metric]) for _, metric in rows)])
    first = min(first, WIDTH // 3)
    room = WIDTH - first - second - 6
    models = list(results)
    fitting = max(1, min(len(models), room // (_LABEL + 2)))
    widths = first, room // fitting - 2
    parts = [_part(results, rows, models[start : start + fitting], *widths) for start in range(0, len(models), fitting)]
    return Group(*parts, NOTE)


def _rows(results: Results) -> list[tuple[str, str]]:
    """Every metric of every set that any model has; metrics in the order of NAMES."""
    sets = dict.fromkeys(name for metrics in results.values() for name in metrics)
    return [
        (name, metric)
        for name in sets
        for metric in NAMES
        if any(metric in metrics.get(name, {}) for metrics in results.values())
    ]


def _part(results: Results, rows: Sequence[tuple[str, str]], models: Sequence[str], first: int, label: int) -> Table:
    made = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    made.add_column("set", overflow="fold", max_width=first)
    made.add_column("metric")
    for model in models:
        made.add_column(model, justify="right", overflow="fold", max_width=label)
    previous = None
    for name, metric in rows:
        values = [results[model].get(name, {}).get(metric) for model in models]
        cells = ["-" if value is None else f"{value:.1f}" for value in values]
        if previous not in (None, name):
            made.add_section()
        made.add_row("" if name == previous else name, NAMES[metric], *cells)
        previous = name
    return made
