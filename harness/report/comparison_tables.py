"""Tables of a comparison, for the terminal (at most 80 columns) and in Markdown."""

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from harness.report.comparison import METRICS, Column, ComparedModel, best_students, comparison_columns

MARK = "*"
NOTE = f"percent, {MARK} best student; i2t: find an image's text, t2i: a text's image"


def print_tables(models: Sequence[ComparedModel], console: Console | None = None) -> None:
    """Print results and costs; results of several seeds as mean and range."""
    console = console or Console()
    several = max(len(model.runs) for model in models) > 1
    for table in [seed_table(models)] if several else result_tables(models):
        console.print(table)
    console.print(NOTE, style="dim", highlight=False)
    console.print(cost_table(models))


def result_tables(models: Sequence[ComparedModel]) -> list[Table]:
    """One row per model, one column per metric; sets that share a metric get a table each."""
    return [_result_table(models, group) for group in _without_repeats(comparison_columns(models))]


def _result_table(models: Sequence[ComparedModel], group: Sequence[Column]) -> Table:
    table = _table(", ".join(dict.fromkeys(name for name, _ in group)))
    table.add_column("model")
    for _, metric in group:
        table.add_column(METRICS[metric].replace(" ", "\n"), justify="right", no_wrap=True)
    for model in models:
        table.add_row(model.label, *(_marked(models, model, column, range_too=False) for column in group))
    return table


def seed_table(models: Sequence[ComparedModel]) -> Table:
    """One row per metric, one column per model: mean (min-max), and the gain of the last student over the first."""
    header, *rows = _seed_cells(models)
    table = _table(f"{max(len(model.runs) for model in models)} seeds: mean (min-max)")
    table.add_column(header[0])
    for text in header[1:]:
        table.add_column(text, justify="right")
    for row in rows:
        table.add_row(*row)
    return table


def markdown(models: Sequence[ComparedModel]) -> str:
    """Seed table in Markdown, the best student in bold."""
    header, *rows = _seed_cells(models)
    plain = [[f"**{cell[1:]}**" if cell.startswith(MARK) else cell for cell in row] for row in rows]
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *plain]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def cost_table(models: Sequence[ComparedModel]) -> Table:
    """Parameters in millions, training time and speed (mean over seeds)."""
    table = _table("cost")
    table.add_column("model")
    for text in ("image tower", "text tower", "total", "training", "images/s"):
        table.add_column(text, justify="right")
    for model in models:
        sizes = [f"{model.parameters[part] / 1e6:.2f} M" for part in ("image", "text", "total")]
        seconds = _mean(run.seconds for run in model.runs)
        speed = _mean(run.images_per_second for run in model.runs)
        table.add_row(model.label, *sizes, _number(seconds, " s"), _number(speed))
    return table


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))


def _without_repeats(all_columns: Iterable[Column]) -> list[list[Column]]:
    """Split columns into groups without a repeated metric."""
    groups: list[list[Column]] = []
    for column in all_columns:
        free = next((group for group in groups if all(metric != column[1] for _, metric in group)), None)
        if free is None:
            groups.append(free := [])
        free.append(column)
    return groups


def _seed_cells(models: Sequence[ComparedModel]) -> list[list[str]]:
    students = [model for model in models if not model.is_teacher]
    compare = len(students) > 1
    header = ["", *(model.label for model in models), *(["gain"] if compare else [])]
    rows = [header]
    shown = comparison_columns(models)
    for column in shown:
        cells = [_marked(models, model, column, range_too=True) for model in models]
        gain = [_gain(students[0], students[-1], column)] if compare else []
        alone = sum(metric == column[1] for _, metric in shown) == 1
        rows.append([METRICS[column[1]] if alone else f"{column[0]} {METRICS[column[1]]}", *cells, *gain])
    return rows


def _marked(models: Sequence[ComparedModel], model: ComparedModel, column: Column, *, range_too: bool) -> str:
    spread = model.metric_range(column)
    if spread is None:
        return "-"
    text = f"{spread.mean:.1f}"
    if range_too and len(model.runs) > 1:
        text += f" ({spread.low:.1f}-{spread.high:.1f})"
    return MARK + text if model.name in best_students(models, column) else text


def _gain(first: ComparedModel, last: ComparedModel, column: Column) -> str:
    """Difference of the means, and on how many seeds the last student wins."""
    both = [(a.value(column), b.value(column)) for a, b in zip(first.runs, last.runs, strict=True)]
    pairs = [(a, b) for a, b in both if a is not None and b is not None]
    if not pairs:
        return "-"
    text = f"{sum(b - a for a, b in pairs) / len(pairs):+.1f}"
    return text if len(pairs) == 1 else f"{text}, {sum(b > a for a, b in pairs)} of {len(pairs)}"


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _number(value: float | None, unit: str = "") -> str:
    return "-" if value is None else f"{value:,.0f}{unit}"
