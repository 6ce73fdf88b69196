"""Charts as SVG: inline with CSS variables as colours, or as files with fixed colours on white."""

from __future__ import annotations

import io
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from harness.report.page import palette
from harness.report.page.chart import Chart, Series
from harness.report.page.svg_cleanup import clean_svg, scope_svg_ids

# Inches, at 72 units each: one unit is about one and a third CSS pixel where a chart fills a phone.
WIDTH, HEIGHT, LEGEND_LINE = 3.7, 2.3, 0.19
FONT = 8.5
# Placeholder colours, replaced after drawing; no other colour starts like them.
_PLACEHOLDER = "#fe00{:02x}"
_INK, _SOFT, _GRID = (_PLACEHOLDER.format(0xF0 + number) for number in range(3))
_SHADES = {"ink": _INK, "soft": _SOFT, "grid": _GRID}
_RC: Any = {
    "svg.fonttype": "none",  # keep text as text, selectable and in the reader's font
    "svg.hashsalt": "clipkd",  # reproducible bytes
    "text.parse_math": False,  # names of runs may contain dollar signs
    "font.size": FONT,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _SOFT,
    "axes.titlecolor": _INK,
    "text.color": _INK,
    "xtick.color": _SOFT,
    "ytick.color": _SOFT,
    "grid.color": _GRID,
}


def inline_svg(chart: Chart) -> str:
    """Chart for the page: full width, with CSS variables ``--c0``, ``--ink``, ... as colours."""
    svg = _svg(chart, alone=False)
    for number in range(len(palette.LIGHT)):
        svg = svg.replace(_PLACEHOLDER.format(number), f"var(--c{number})")
    for name, placeholder in _SHADES.items():
        svg = svg.replace(placeholder, f"var(--{name})")
    return scope_svg_ids(svg, chart.name)


def file_svg(chart: Chart) -> str:
    """Standalone chart: on white, with a legend if it has several series."""
    svg = _svg(chart, alone=True)
    for number, color in enumerate(palette.LIGHT):
        svg = svg.replace(_PLACEHOLDER.format(number), color)
    for name, placeholder in _SHADES.items():
        svg = svg.replace(placeholder, palette.SHADES[name]["light"])
    return svg


def _svg(chart: Chart, *, alone: bool) -> str:
    lines = len({series.label for series in chart.series}) if alone and len(chart.series) > 1 else 0
    with matplotlib.rc_context(_RC):
        figure = Figure(figsize=(WIDTH, HEIGHT + LEGEND_LINE * lines), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        _draw(axes, chart)
        if lines:
            figure.legend(loc="outside lower left", frameon=False, fontsize=FONT)
        if not alone:
            figure.patch.set_visible(False)
            axes.patch.set_visible(False)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return clean_svg(out.getvalue())


def _draw(axes: Axes, chart: Chart) -> None:
    for series in chart.series:
        _draw_series(axes, series)
    for line in chart.reference_lines:
        axes.axhline(line.y, color=_SOFT, linewidth=1, linestyle=(0, (2, 2)))
        place: dict[str, Any] = {
            "xycoords": ("axes fraction", "data"),
            "textcoords": "offset points",
            "ha": "right",
            "va": "bottom",
        }
        axes.annotate(line.label, (1, line.y), (-2, 1.5), color=_SOFT, fontsize=FONT - 1, **place)
    axes.set_title(chart.title, loc="left", fontsize=FONT + 0.5, fontweight="bold")
    axes.set_xlabel(chart.x_label)
    axes.set_ylabel(chart.y_label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    _scale_x(axes, chart)
    _scale_y(axes, chart)


def _draw_series(axes: Axes, series: Series) -> None:
    color = _PLACEHOLDER.format(palette.color_of(series.slot))
    look: dict[str, Any] = {"color": color, "label": series.label, "linewidth": 1.6}
    if series.kind == "steps":
        axes.stairs(series.y, series.x, linestyle=palette.dash(series.slot), **look)
    elif series.kind == "line":
        # Markers, since a line of one or two points is hardly visible.
        marker = "o" if len(series.x) < 3 else None
        axes.plot(series.x, series.y, linestyle=palette.dash(series.slot), marker=marker, markersize=4, **look)
    else:
        axes.plot(series.x, series.y, marker=palette.marker(series.slot), markersize=6.5, linestyle="none", **look)
        axes.margins(0.12)


def _scale_x(axes: Axes, chart: Chart) -> None:
    if chart.log_x:
        axes.set_xscale("log")
        _log_ticks(axes.xaxis, chart.series[0].kind == "point")
    elif chart.x_label == "step":
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def _scale_y(axes: Axes, chart: Chart) -> None:
    if chart.log_y:
        axes.set_yscale("log")
        _log_ticks(axes.yaxis, engineering=False)
    else:
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))


def _log_ticks(axis: Any, engineering: bool) -> None:
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if _decades(axis) < 2.5 else (1,)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(EngFormatter(sep="") if engineering else StrMethodFormatter("{x:g}"))


def _decades(axis: Any) -> float:
    from math import log10

    low, high = axis.get_view_interval()
    return log10(high / low) if low > 0 else 1.0
