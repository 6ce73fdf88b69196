"""Names at the ends of lines, moved apart where they would cover each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib import patheffects
from matplotlib.axes import Axes

FONT_POINTS = 8.5
LINE_POINTS = 11.0


class Label(NamedTuple):
    """A text at the point where a line ends."""

    x: float
    y: float
    text: str
    color: str


def place_labels(axes: Axes, labels: Sequence[Label]) -> None:
    """Write each label right of its point; those of the same x keep a line's distance."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()  # the layout decides how many points a decade is
    points_per_pixel = 72 / figure.dpi
    for x in sorted({label.x for label in labels}):
        column = sorted((label for label in labels if label.x == x), key=lambda label: label.y)
        heights = [axes.transData.transform((x, label.y))[1] * points_per_pixel for label in column]
        for label, height, free in zip(column, heights, spread(heights, LINE_POINTS), strict=True):
            axes.annotate(
                label.text,
                (x, label.y),
                (7, free - height),
                textcoords="offset points",
                va="center",
                fontsize=FONT_POINTS,
                color=label.color,
                path_effects=[patheffects.withStroke(linewidth=2.5, foreground="white")],
            )


def spread(places: Sequence[float], gap: float) -> list[float]:
    """Ascending places, moved as little as needed to be at least `gap` apart.

    Neighbors that are too close become a block around their mean; blocks that then touch become one.
    """
    blocks: list[list[float]] = []
    for place in places:
        blocks.append([place])
        while len(blocks) > 1 and _start(blocks[-1], gap) < _start(blocks[-2], gap) + gap * len(blocks[-2]):
            last = blocks.pop()
            blocks[-1] += last
    return [_start(block, gap) + gap * number for block in blocks for number in range(len(block))]


def _start(block: Sequence[float], gap: float) -> float:
    return sum(block) / len(block) - gap * (len(block) - 1) / 2
