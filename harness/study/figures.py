"""Figures of a study: ranking next to the published one, score against similarity, sensitivity curves."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import mean
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from harness.files import save_figure
from harness.study.best_values import own_value
from harness.study.config import Sweep, Variant
from harness.study.results import StudyResults, mean_score

# Okabe and Ito's palette, which colour-blind readers can distinguish.
COLORS = {"baseline": "#8c8c8c", "method": "#0072b2", "combination": "#e69f00", "other": "#cc79a7"}
TITLES = {"cosine": "cosine of features as they are", "alignment": "alignment (linear CKA)"}


def write_figures(results: StudyResults, out: Path) -> list[Path]:
    """Write the figures that the results have data for, each atomically.

    Returns:
        Their paths.
    """
    figures = {"ranking.png": ranking(results)}
    if any(results.similarity(variant, "alignment") is not None for variant in results.study.variants):
        figures["similarity.png"] = similarity(results)
    if results.study.sweeps:
        figures["sweeps.png"] = sweeps(results)
    for file, figure in figures.items():
        save_figure(figure, out / file)
    return [out / file for file in figures]


def ranking(results: StudyResults) -> Figure:
    """Mean scores with one point per seed, best on top, next to the published numbers; bars start at the baseline."""
    order = results.ranked()[::-1]
    published = [variant for variant in order if variant.published is not None]
    figure = _figure(11, 0.38 * len(order) + 2)
    left, *right = figure.subplots(1, 2 if published else 1, sharey=True, squeeze=False)[0]
    base = mean(results.scores(results.study.baseline))
    for place, variant in enumerate(order):
        scores = results.scores(variant)
        _bar(left, place, base, mean(scores), variant)
        left.plot(scores, [place] * len(scores), "o", color="black", markersize=4, alpha=0.7)
        end = max(*scores, base), place
        left.annotate(f"{mean(scores):.1f}", end, (7, 0), textcoords="offset points", va="center")
    every = [one for variant in order for one in results.scores(variant)]
    _zoom(left, every)
    left.set_yticks(range(len(order)), [variant.label for variant in order])
    seeds = len(results.study.seeds)
    points = f", points: {seeds} seeds" if seeds > 1 else ""
    left.set(title=f"here: {_score_label(results)}{points}")
    for axes in right:
        _published(axes, order, results.study.baseline.published)
    for axes in (left, *right):
        _plain(axes, "x")
    _legend(figure, results)
    title = (results.study.description or results.study.name).removesuffix(".")
    figure.suptitle(f"{title}; bars: distance from the baseline", fontweight="bold")
    return figure


def similarity(results: StudyResults) -> Figure:
    """Scatter plots of score against feature similarity to the teacher, one point per variant."""
    figure = _figure(11, 5.2)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, measure in zip(panels, TITLES, strict=True):
        _scatter(axes, results, measure)
    panels[0].set_ylabel(_score_label(results))
    _legend(figure, results)
    figure.suptitle("Score against similarity of student's and teacher's features", fontweight="bold")
    return figure


def sweeps(results: StudyResults) -> Figure:
    """Score over the swept value, one panel per sweep, with the baseline as a line."""
    count = len(results.study.sweeps)
    columns = min(count, 3)
    lines = math.ceil(count / columns)
    figure = _figure(max(3.7 * columns, 6), 3.3 * lines + 0.4)
    panels = figure.subplots(lines, columns, sharey=True, squeeze=False)
    base = results.tuning_score(results.study.baseline)
    scores = [[mean_score(run["metrics"], results.study.rank_by) for run in runs] for runs in results.sweeps]
    every = sorted(one for points in scores for one in points)
    # A collapsed run would flatten the other curves, so it is clipped to the edge and labelled with its score.
    limits = max(every[0], every[len(every) // 2] - 12) - 1, every[-1] + 2
    for axes, sweep, points in zip(panels.flat, results.study.sweeps, scores, strict=False):
        _sweep(axes, results, sweep, points, base, limits)
    for axes in panels.flat[count:]:
        axes.set_visible(False)
    for axes in panels[:, 0]:
        axes.set_ylabel(_score_label(results))
    figure.suptitle("Sensitivity to one setting: tuning sets, one seed", fontweight="bold")
    return figure


def _published(axes: Axes, order: list[Variant], base: float | None) -> None:
    numbers = [(place, one, one.published) for place, one in enumerate(order) if one.published is not None]
    for place, variant, number in numbers:
        _bar(axes, place, base, number, variant)
        axes.annotate(f"{number:.2f}", (number, place), (7, 0), textcoords="offset points", va="center")
    _zoom(axes, [number for _, _, number in numbers])
    axes.set(title="published")


def _bar(axes: Axes, place: int, base: float | None, value: float, variant: Variant) -> None:
    """A mark at the value and a bar from the baseline: on a bar from 0 the differences would be too small to see."""
    color = COLORS[variant.kind]
    axes.plot([value], [place], marker="|", markersize=16, markeredgewidth=3, color=color)
    if base is not None:
        axes.barh(place, value - base, left=base, color=color, alpha=0.7, height=0.6)
        axes.axvline(base, color=COLORS["baseline"], lw=1, zorder=0)


def _scatter(axes: Axes, results: StudyResults, measure: str) -> None:
    similar = [(variant, results.similarity(variant, measure)) for variant in results.ranked()]
    known = [(variant, x) for variant, x in similar if x is not None]
    ranked = [variant for variant, _ in known]
    points = [(x, mean(results.scores(variant))) for variant, x in known]
    for variant, (x, y) in zip(ranked, points, strict=True):
        scores = results.scores(variant)
        axes.errorbar(
            x, y, [[y - min(scores)], [max(scores) - y]], fmt="o", color=COLORS[variant.kind], capsize=2, elinewidth=1
        )
    axes.set(xlabel=TITLES[measure])
    axes.margins(x=0.3, y=0.08)
    _plain(axes, "both")
    label_points(axes, points, [variant.label for variant in ranked])


def label_points(axes: Axes, points: list[tuple[float, float]], texts: list[str]) -> None:
    """Write a text next to each point, without overlap where there is room."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    unit_x, unit_y = (right - left) / 100, (high - low) / 100
    taken = [(x - unit_x, y - unit_y, x + unit_x, y + unit_y) for x, y in points]
    places = [(side, up) for up in (0, 3, -3, 6, -6, 9, -9, 12, -12, 15, -15) for side in (1, -1)]
    for (x, y), text in zip(points, texts, strict=True):
        width, height = 1.4 * len(text) * unit_x, 3 * unit_y
        boxes = []
        for side, up in places:
            start = x + 2 * unit_x if side > 0 else x - 2 * unit_x - width
            bottom = y + up * unit_y - height / 2
            boxes.append((start, bottom, start + width, bottom + height))
        inside = [box for box in boxes if left <= box[0] and box[2] <= right and low <= box[1] and box[3] <= high]
        free = [box for box in inside if not any(_overlap(box, other) for other in taken)]
        chosen = (free or inside or boxes)[0]
        taken.append(chosen)
        near, align = (chosen[0], "left") if chosen[0] > x else (chosen[2], "right")
        middle = (chosen[1] + chosen[3]) / 2
        axes.plot([x, near], [y, middle], color="#bbbbbb", lw=0.6, zorder=0)
        axes.text(near, middle, text, fontsize=8, va="center", ha=align, in_layout=False)
    axes.set(xlim=(left, right), ylim=(low, high))


def _overlap(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _sweep(
    axes: Axes,
    results: StudyResults,
    sweep: Sweep,
    points: list[float],
    base: float | None,
    limits: tuple[float, float],
) -> None:
    variant = results.study.variant(sweep.variant)
    axes.plot(sweep.values, points, "o-", color=COLORS[variant.kind])
    for value, point in zip(sweep.values, points, strict=True):
        if point < limits[0]:
            axes.annotate(f"{point:.1f}", (value, limits[0]), (-4, 6), textcoords="offset points", ha="right")
    axes.set_ylim(limits)
    if base is not None:
        axes.axhline(base, color=COLORS["baseline"], ls="--", label="baseline")
    own = own_value(results.study, results.chosen, sweep)
    if own is not None:
        axes.axvline(own, color="black", lw=1, ls=":", label="the variant's own")
    if min(sweep.values) > 0:
        axes.set_xscale("log")
    axes.set_xticks(sweep.values, [f"{one:g}" for one in sweep.values])
    axes.set_xticks([], minor=True)
    axes.set(title=variant.label, xlabel=sweep.key)
    axes.legend(frameon=False, fontsize=8)
    _plain(axes, "both")


def _score_label(results: StudyResults) -> str:
    return f"mean of {len(results.study.rank_by)} metrics, percent"


def _legend(figure: Figure, results: StudyResults) -> None:
    kinds = [kind for kind in COLORS if any(variant.kind == kind for variant in results.study.variants)]
    handles = [Line2D([], [], marker="o", ls="", color=COLORS[kind], label=kind) for kind in kinds]
    figure.legend(handles=handles, frameon=False, fontsize=9, ncols=len(kinds), loc="outside lower center")


def _zoom(axes: Axes, values: list[float]) -> None:
    """Set limits close to the values, since their differences are small."""
    low, high = min(values), max(values)
    margin = max(high - low, 1) * 0.25
    axes.set_xlim(max(0, low - margin), high + margin)


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _plain(axes: Axes, grid: Literal["both", "x", "y"]) -> None:
    axes.grid(axis=grid, alpha=0.25)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
