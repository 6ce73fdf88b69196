"""What a chart shows, before it is drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

# More points than a chart is wide say nothing more, and a long run has tens of thousands.
MAX_POINTS = 400
# Above this ratio the small values of a curve are flat on a linear axis.
LOG_RATIO = 30


@dataclass(frozen=True)
class Series:
    """One line, outline of bars, or point of a chart.

    Args:
        label: what it is, for the legend and the description.
        slot: its colour's number.
        x: for ``steps``, the edges of the bins, one more than y.
        y: as many as x.
        kind: line; steps, the outline of a histogram; point, with its label beside it.
    """

    label: str
    slot: int
    x: Sequence[float]
    y: Sequence[float]
    kind: Literal["line", "steps", "point"] = "line"


@dataclass(frozen=True)
class ReferenceLine:
    """A horizontal line, such as a teacher's accuracy."""

    label: str
    y: float


@dataclass(frozen=True)
class Chart:
    """A small chart, made to be read on a phone.

    Args:
        name: stem of its file.
        title: what the y axis shows.
        alt: the same in words with its numbers, for those who do not see it.
        x_label: with its unit.
        y_label: with its unit; empty where the title says it.
        series: at least one.
        reference_lines: horizontal lines.
        log_x: logarithmic axis.
        log_y: likewise.
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


def thinned(x: Sequence[float], y: Sequence[float], limit: int = MAX_POINTS) -> tuple[list[float], list[float]]:
    """Means of neighbours where there are more than ``limit`` points."""
    size = math.ceil(len(x) / limit)
    if size <= 1:
        return list(x), list(y)
    parts = [slice(start, start + size) for start in range(0, len(x), size)]
    return [_mean(x[part]) for part in parts], [_mean(y[part]) for part in parts]


def wants_log(values: Sequence[float]) -> bool:
    """Whether values are better read on a logarithmic axis."""
    return bool(values) and min(values) > 0 and max(values) / min(values) > LOG_RATIO


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
