"""Time and memory against batch size, a picture for each loss, with the least that the matrix products take."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from harness.bench.losses.cases import weights_of
from harness.bench.losses.formats import threads
from harness.bench.losses.lower_bound import matmul_lower_bound
from harness.bench.losses.panels import draw_memory, draw_time
from harness.bench.losses.resultfile import newest
from harness.bench.losses.rows import OK, LossRow
from harness.files import save_figure


class PlotSetting(NamedTuple):
    """What all points of one picture share."""

    loss: str
    variant: str
    dim: int
    teacher_dim: int
    dtype: str
    device: str
    threads: int
    machine: str


def plot_setting(row: LossRow) -> PlotSetting:
    """The picture that a row belongs to."""
    return PlotSetting(*(getattr(row, name) for name in PlotSetting._fields))


def draw_all(
    rows: Sequence[LossRow], folder: Path, stem: str, wanted: Callable[[LossRow], bool] = lambda row: True
) -> list[Path]:
    """One PNG a setting that has a measured row; returns their paths.

    Args:
        rows: any rows; the newest of each case counts.
        wanted: whether to draw the picture that a row belongs to.
        folder: where to; made when needed.
        stem: how the files' names begin.
    """
    shown = newest(rows)
    settings = list(dict.fromkeys(plot_setting(row) for row in shown if row.status == OK))
    drawn = {plot_setting(row) for row in shown if wanted(row)}
    paths = []
    for setting in [setting for setting in settings if setting in drawn]:
        path = folder / f"{stem}-{_suffix(setting, settings)}.png"
        folder.mkdir(parents=True, exist_ok=True)
        save_figure(draw(setting, shown), path)
        paths.append(path)
    return paths


def draw(setting: PlotSetting, rows: Sequence[LossRow]) -> Figure:
    """Time left, memory right."""
    figure = Figure(figsize=(11, 4.8), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(_title(setting), fontsize=12, fontweight="bold", x=0.01, ha="left")
    mine = [row for row in rows if plot_setting(row) == setting]
    time, memory = figure.subplots(1, 2)
    bound = matmul_lower_bound(
        weights_of(setting.loss, setting.variant), setting.variant, setting.dim, setting.teacher_dim
    )
    draw_time(time, mine, _matmuls(setting, rows, {row.batch for row in mine}), bound)
    draw_memory(memory, mine)
    figure.supxlabel("batch size B (pairs)", fontsize=10)
    return figure


def _matmuls(setting: PlotSetting, rows: Sequence[LossRow], batches: Collection[int]) -> dict[int, float]:
    """Milliseconds of a matmul by batch, ascending; the same for every loss, so all losses' rows tell it."""
    same = [row for row in rows if row.status == OK and plot_setting(row)._replace(loss=setting.loss) == setting]
    found = sorted({row.batch for row in same}.intersection(batches))
    return {
        batch: median(row.matmul_ms for row in same if row.batch == batch and row.matmul_ms is not None)
        for batch in found
    }


def _title(setting: PlotSetting) -> str:
    width = f"D = {setting.dim}" + (f"/{setting.teacher_dim}" if setting.teacher_dim != setting.dim else "")
    variant = "" if setting.variant == "paper" else f" ({setting.variant})"
    where = setting.machine + (f", {threads(setting.threads)}" if setting.device == "cpu" else "")
    return f"{setting.loss}{variant}: {setting.dtype}, {width}, {where}"


def _suffix(setting: PlotSetting, settings: Sequence[PlotSetting]) -> str:
    """The loss, and whatever else tells this picture from the file's others."""
    parts = [setting.loss]
    for name in PlotSetting._fields[1:]:
        if len({getattr(other, name) for other in settings}) > 1:
            value = getattr(setting, name)
            parts.append(f"{name}{value}" if isinstance(value, int) else re.sub(r"[^A-Za-z0-9.]+", "-", value))
    return "-".join(parts)
