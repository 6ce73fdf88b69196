"""Figure of a comparison: loss curves above, metric bars below."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from harness.files import save_figure
from harness.report.comparison import METRICS, Column, ComparedModel, comparison_columns

Records = Sequence[Mapping[str, Any]]  # lines of metrics.jsonl

# Okabe and Ito's palette, which is safe for colour-blind readers.
MODEL_COLORS = ("#8c8c8c", "#e69f00", "#0072b2", "#cc79a7")
TERM_COLORS = {"contrastive": "#6a3d9a", "crd": "#d55e00", "fd": "#009e73", "icl": "#cc79a7", "mfd": "#56b4e9"}
OTHER_COLORS = ("#999933", "#882255", "#332288", "#44aa99")


def plot(curves: Mapping[str, Records], models: Sequence[ComparedModel], out: Path, title: str) -> None:
    """Draw loss curves above and metric bars below; the file is written atomically.

    Args:
        curves: metrics.jsonl of each student by its label.
        models: the comparison; bars show means, with whiskers over seeds.
        out: PNG file.
        title: title of the figure.
    """
    figure = Figure(figsize=(11, 8), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=14, fontweight="bold")
    grid = figure.add_gridspec(2, max(len(curves), 1), height_ratios=(1, 1.05))
    shared: Axes | None = None
    for place, (label, records) in enumerate(curves.items()):
        axes = figure.add_subplot(grid[0, place], sharey=shared)
        shared = shared or axes
        _draw_losses(axes, label, records)
    _draw_bars(figure.add_subplot(grid[1, :]), models)
    save_figure(figure, out)


def _draw_losses(axes: Axes, label: str, records: Records) -> None:
    """Plot each weighted term, and their sum if there are several."""
    records = [record for record in records if "eval" not in record]  # lines of evaluations have no loss
    terms = [key for key in (records[-1] if records else {}) if key.endswith("_loss")]
    spare = iter(OTHER_COLORS)
    steps = [record["step"] for record in records]
    for key in terms:
        name = key.removesuffix("_loss")
        color = TERM_COLORS.get(name) or next(spare, "#000000")
        axes.plot(steps, [record[key] for record in records], color=color, linewidth=1.8, label=name.replace("_", " "))
    if len(terms) > 1:
        axes.plot(steps, [record["loss"] for record in records], color="#222222", linewidth=1.4, ls="--", label="sum")
    # Log scale: the sum and its smallest term differ by one or two orders of magnitude.
    axes.set(title=f"{label}: training loss, weighted terms", xlabel="step", ylabel="loss (log scale)", yscale="log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.grid(alpha=0.25, which="both")
    axes.spines[["top", "right"]].set_visible(False)
    if terms:
        axes.legend(frameon=False, fontsize=9)


def _draw_bars(axes: Axes, models: Sequence[ComparedModel]) -> None:
    """One group of bars per metric, with the value above each bar."""
    groups = comparison_columns(models)
    width = 0.84 / max(len(models), 1)
    for number, model in enumerate(models):
        color = MODEL_COLORS[number % len(MODEL_COLORS)]
        shown = [(place, spread) for place, column in enumerate(groups) if (spread := model.metric_range(column))]
        places = [place + (number - (len(models) - 1) / 2) * width for place, _ in shown]
        means = [spread.mean for _, spread in shown]
        whiskers = None
        if len(model.runs) > 1:
            lows = [spread.mean - spread.low for _, spread in shown]
            whiskers = (lows, [spread.high - spread.mean for _, spread in shown])
        axes.bar(places, means, width * 0.94, color=color, label=model.label, yerr=whiskers, capsize=2)
        for x, (_, spread) in zip(places, shown, strict=True):
            axes.annotate(
                f"{spread.mean:.0f}", (x, spread.high), (0, 3), textcoords="offset points", ha="center", fontsize=8
            )
    axes.set_xticks(range(len(groups)), [_tick(column) for column in groups], fontsize=9)
    axes.set(title="Held-out metrics (percent)", ylim=(0, 108), yticks=range(0, 101, 20))
    axes.grid(axis="y", alpha=0.25)
    axes.set_axisbelow(True)
    axes.margins(x=0.02)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, ncols=len(models), loc="upper left", bbox_to_anchor=(0, 1.12), fontsize=9)


def _tick(column: Column) -> str:
    name, metric = column
    return f"{name}\n{METRICS[metric]}"
