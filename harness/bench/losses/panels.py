"""The two panels of a picture: time and memory against the batch size, both logarithmic."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from harness.bench.losses.formats import digits, milliseconds, size
from harness.bench.losses.labels import Label, place_labels
from harness.bench.losses.rows import OK, OUT_OF_MEMORY, PREDICTED_OUT_OF_MEMORY, PREDICTED_TOO_SLOW, LossRow
from kdlosses.cost import MatrixProducts

# Okabe and Ito's palette: told apart by colour-blind readers too. An implementation keeps its color in every picture.
COLORS = {
    "dense": "#0072b2",
    "chunked": "#009e73",
    "triton": "#d55e00",
    "open_clip": "#cc79a7",
    "memeff": "#e69f00",
    "formula": "#333333",
}
LINE_STYLES = {"kept": (0, (5, 2)), "recomputed": (0, (1, 1.5))}
OTHER_COLOR, BOUND_COLOR = "#56b4e9", "#8c8c8c"
GAVE_UP = {OUT_OF_MEMORY: "out of memory", PREDICTED_OUT_OF_MEMORY: "out of memory", PREDICTED_TOO_SLOW: "too slow"}


def draw_time(axes: Axes, mine: Sequence[LossRow], matmuls: Mapping[int, float], bound: MatrixProducts | None) -> None:
    """Forward and backward together, and what the lower bound's products take.

    Args:
        axes: where.
        mine: the picture's rows.
        matmuls: milliseconds of one product by batch, ascending.
        bound: in matrix products, or None where it is not known.
    """
    labels = _draw_series(axes, mine, "both_ms", band=("both_p20", "both_p80"))
    if bound and bound.kept:
        for products, how in (bound.kept, "kept"), (bound.recomputed, "recomputed"):
            line = {batch: products * one for batch, one in matmuls.items()}
            labels.append(_draw_reference(axes, line, f"{digits(products)} products, {how}", LINE_STYLES[how]))
    axes.set_title("forward and backward", fontsize=10, loc="left")
    _finish(axes, mine, labels, milliseconds, LogLocator(10, subs=_ticks(axes)))


def draw_memory(axes: Axes, mine: Sequence[LossRow]) -> None:
    """Peaks above the inputs, and one of the matrices that others keep."""
    labels = _draw_series(axes, mine, "peak_bytes")
    sizes = {row.batch: row.case.matrix_bytes for row in mine if row.status == OK}
    line = {batch: float(sizes[batch]) for batch in sorted(sizes)}
    labels.append(_draw_reference(axes, line, "one B x B matrix", LINE_STYLES["recomputed"]))
    what = "allocator" if mine[0].device == "cuda" else "live tensors"
    axes.set_title(f"peak memory above the inputs ({what})", fontsize=10, loc="left")
    _finish(axes, mine, labels, size, LogLocator(2))


def _draw_series(axes: Axes, mine: Sequence[LossRow], column: str, band: tuple[str, str] | None = None) -> list[Label]:
    """A line an implementation; returns the labels of their ends."""
    labels = []
    for implementation in dict.fromkeys(row.implementation for row in mine):
        points = sorted(
            (row for row in mine if row.implementation == implementation and row.status == OK),
            key=lambda row: row.batch,
        )
        if not points:
            continue
        color = COLORS.get(implementation, OTHER_COLOR)
        batches, values = [row.batch for row in points], [getattr(row, column) for row in points]
        axes.plot(batches, values, color=color, linewidth=1.8, marker="o", markersize=4, label=implementation)
        if band:
            low, high = ([getattr(row, name) for row in points] for name in band)
            axes.fill_between(batches, low, high, color=color, alpha=0.2, linewidth=0)
        labels.append(Label(batches[-1], values[-1], implementation, color))
    return labels


def _draw_reference(axes: Axes, line: dict[int, float], text: str, style: tuple[int, tuple[float, float]]) -> Label:
    """A gray line behind the implementations' lines."""
    axes.plot(list(line), list(line.values()), color=BOUND_COLOR, linewidth=1.3, linestyle=style, zorder=1, label=text)
    batch = max(line)
    return Label(batch, line[batch], text, BOUND_COLOR)


def _finish(
    axes: Axes, mine: Sequence[LossRow], labels: list[Label], unit: Callable[[float], str], locator: LogLocator
) -> None:
    axes.set(xscale="log", yscale="log")
    batches = sorted({row.batch for row in mine})
    # One that nobody could do has a cross and no point, and a cross does not widen the axis by itself.
    axes.update_datalim([(batch, axes.dataLim.ymin) for batch in batches])
    axes.autoscale_view()
    axes.xaxis.set_major_locator(FixedLocator(batches))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(locator)
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: unit(value)))
    axes.tick_params(labelsize=9)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    _mark_failures(axes, mine)
    place_labels(axes, labels)


def _ticks(axes: Axes) -> tuple[float, ...]:
    """1, 2 and 5 of each decade, or 1 alone where there are many decades."""
    low, high = axes.dataLim.intervaly
    return (1.0, 2.0, 5.0) if high < 500 * low else (1.0,)


def _mark_failures(axes: Axes, mine: Sequence[LossRow]) -> None:
    """A cross at each batch that an implementation cannot do, above all lines, with the reason at the first."""
    gone = sorted((row for row in mine if row.status in GAVE_UP), key=lambda row: row.batch)
    implementations = list(dict.fromkeys(row.implementation for row in gone))
    axes.margins(y=0.06 + 0.06 * len(implementations))
    seen: set[str] = set()
    for row in gone:
        place = (row.batch, 0.98 - 0.05 * implementations.index(row.implementation))
        style: dict[str, Any] = {
            "color": COLORS.get(row.implementation, OTHER_COLOR),
            "xycoords": axes.get_xaxis_transform(),
        }
        axes.annotate("x", place, ha="center", va="center", fontsize=10, **style)
        if row.implementation not in seen:
            text = f"{row.implementation}: {GAVE_UP[row.status]}"
            axes.annotate(
                text, place, (-8, 0), textcoords="offset points", ha="right", va="center", fontsize=8, **style
            )
        seen.add(row.implementation)
