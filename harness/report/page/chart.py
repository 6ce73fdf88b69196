"""Data of a chart, before it is drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

# A chart cannot show more points than it is wide; a long run has tens of thousands.
MAX_POINTS = 400
# Above this ratio of largest to smallest value, a curve is flat on a linear axis.
LOG_RATIO = 30


@dataclass(frozen=True)
class Series:
    """Series of a chart: a line, a histogram outline or a point.

    Args:
        label: name in the legend and the description.
        slot: index of its colour.
        x: x values; for ``steps`` the edges of the bins, one more than y.
        y: y values.
        kind: line; steps, the outline of a histogram; or point.
    """

    label: str
    slot: int
    x: Sequence[float]
    y: Sequence[float]
    kind: Literal["line", "steps", "point"] = "line"


@dataclass(frozen=True)
class ReferenceLine:
    """Horizontal reference line, such as a teacher's accuracy."""

    label: str
    y: float


@dataclass(frozen=True)
class Chart:
    """Small chart, readable on a phone.

    Args:
        name: stem of its file name.
        title: what the y axis shows.
        alt: text alternative with the main numbers.
        x_label: label of the x axis, with its unit.
        y_label: label of the y axis, with its unit; empty if the title says it.
        series: at least one series.
        reference_lines: horizontal lines.
        log_x: logarithmic x axis.
        log_y: logarithmic y axis.
    """

    name: str
    title: str
    alt: str
    x_label: str
    series: Sequence[Series]
    y_label: str = ""
    reference_lines: Sequence[ReferenceLine] = field(default_factory=tuple)
    log_x: bool = False
    log_y: bool = False


def downsampled(x: Sequence[float], y: Sequence[float], limit: int = MAX_POINTS) -> tuple[list[float], list[float]]:
    """Downsample to at most ``limit`` points by averaging neighbours."""
    size = math.ceil(len(x) / limit)
    if size <= 1:
        return list(x), list(y)
    parts = [slice(start, start + size) for start in range(0, len(x), size)]
    return [_mean(x[part]) for part in parts], [_mean(y[part]) for part in parts]


def wants_log(values: Sequence[float]) -> bool:
    """Whether values need a logarithmic axis."""
    return bool(values) and min(values) > 0 and max(values) / min(values) > LOG_RATIO


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
