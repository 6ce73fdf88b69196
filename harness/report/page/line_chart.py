"""Line charts over training steps, one line a run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from harness.report.page.chart import Chart, ReferenceLine, Series, thinned, wants_log
from harness.report.page.formatting import short, whole
from harness.report.page.records import RunRecord

Points = Sequence[tuple[float, float]]


def line_chart(
    name: str,
    title: str,
    runs: Sequence[RunRecord],
    points: Mapping[str, Points],
    *,
    reference_lines: Sequence[ReferenceLine] = (),
    log: bool = False,
) -> Chart:
    """A chart over steps.

    Args:
        name: stem of its file; made fit for one.
        title: what is drawn, with its unit.
        runs: in the order of their lines.
        points: (step, value) by label.
        reference_lines: horizontal lines.
        log: whether the y axis may become logarithmic, where the values ask for it.
    """
    drawn = [run for run in runs if points.get(run.label)]
    series = [Series(run.label, run.slot, *thinned(*zip(*points[run.label], strict=True))) for run in drawn]
    log_y = log and wants_log([value for one in series for value in one.y])
    told = [_told(run.label, points[run.label]) for run in drawn]
    told += [f"{line.label}: {short(line.y)}" for line in reference_lines]
    axis = ", logarithmic axis" if log_y else ""
    alt = f"Line chart of {title} over training steps{axis}. {'; '.join(told)}."
    title = f"{title} (log axis)" if log_y else title
    return Chart(file_stem(name), title, alt, "step", series, reference_lines=reference_lines, log_y=log_y)


def legend(runs: Sequence[RunRecord]) -> list[tuple[int, str]]:
    """Which colour is which run."""
    return [(run.slot, run.label) for run in runs]


def file_stem(name: str) -> str:
    """A name that any file system and any HTML id takes."""
    return re.sub(r"[^a-z0-9_.]+", "-", name.lower()).strip("-.") or "chart"


def _told(label: str, points: Points) -> str:
    (first, start), (last, end) = points[0], points[-1]
    if first == last:
        return f"{label}: {short(end)} at step {whole(last)}"
    return f"{label}: {short(start)} at step {whole(first)} to {short(end)} at step {whole(last)}"
