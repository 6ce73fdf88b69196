"""Line charts over training steps, one line per run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from harness.report.page.chart import Chart, ReferenceLine, Series, downsampled, wants_log
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
    """Line chart over training steps.

    Args:
        name: stem of its file name; sanitized.
        title: what is drawn, with its unit.
        runs: the runs, in the order of their lines.
        points: (step, value) by label.
        reference_lines: horizontal lines.
        log: whether the y axis may be logarithmic, if the range of values needs it.
    """
    drawn = [run for run in runs if points.get(run.label)]
    series = [_series(run, points[run.label]) for run in drawn]
    log_y = log and wants_log([value for one in series for value in one.y])
    values = [_in_words(run.label, points[run.label]) for run in drawn]
    values += [f"{line.label}: {short(line.y)}" for line in reference_lines]
    axis = ", logarithmic axis" if log_y else ""
    alt = f"Line chart of {title} over training steps{axis}. {'; '.join(values)}."
    title = f"{title} (log axis)" if log_y else title
    return Chart(file_stem(name), title, alt, "step", series, reference_lines=reference_lines, log_y=log_y)


def legend(runs: Sequence[RunRecord]) -> list[tuple[int, str]]:
    """Legend: colour and label of each run."""
    return [(run.slot, run.label) for run in runs]


def file_stem(name: str) -> str:
    """Sanitize a name for file systems and HTML ids."""
    return re.sub(r"[^a-z0-9_.]+", "-", name.lower()).strip("-.") or "chart"


def _series(run: RunRecord, points: Points) -> Series:
    return Series(run.label, run.slot, *downsampled([step for step, _ in points], [value for _, value in points]))


def _in_words(label: str, points: Points) -> str:
    (first, start), (last, end) = points[0], points[-1]
    if first == last:
        return f"{label}: {short(end)} at step {whole(last)}"
    return f"{label}: {short(start)} at step {whole(first)} to {short(end)} at step {whole(last)}"
