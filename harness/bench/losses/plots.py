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
from harness.bench.losses.floor import unit_floor
from harness.bench.losses.formats import threads
from harness.bench.losses.panels import draw_memory, draw_time
from harness.bench.losses.resultfile import newest
from harness.bench.losses.rows import OK, Row
from harness.files import save_figure


class Setting(NamedTuple):
    """What all points of one picture share."""

    loss: str
    variant: str
    dim: int
    teacher_dim: int
    dtype: str
    device: str
    threads: int
    machine: str


def setting_of(row: Row) -> Setting:
    """The picture that a row belongs to."""
    return Setting(*(getattr(row, name) for name in Setting._fields))


def draw_all(
    rows: Sequence[Row], folder: Path, stem: str, wanted: Callable[[Row], bool] = lambda row: True
) -> list[Path]:
    """One PNG a setting that has a measured row; returns their paths.

    Args:
        rows: any rows; the newest of each case counts.
        wanted: whether to draw the picture that a row belongs to.
        folder: where to; made when needed.
        stem: how the files' names begin.
    """
    shown = newest(rows)
    settings = list(dict.fromkeys(setting_of(row) for row in shown if row.status == OK))
    drawn = {setting_of(row) for row in shown if wanted(row)}
    paths = []
    for setting in [setting for setting in settings if setting in drawn]:
        path = folder / f"{stem}-{_suffix(setting, settings)}.png"
        folder.mkdir(parents=True, exist_ok=True)
        save_figure(draw(setting, shown), path)
        paths.append(path)
    return paths


def draw(setting: Setting, rows: Sequence[Row]) -> Figure:
    """Time left, memory right."""
    figure = Figure(figsize=(11, 4.8), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(_title(setting), fontsize=12, fontweight="bold", x=0.01, ha="left")
    mine = [row for row in rows if setting_of(row) == setting]
    time, memory = figure.subplots(1, 2)
    floor = unit_floor(weights_of(setting.loss, setting.variant), setting.variant, setting.dim, setting.teacher_dim)
    draw_time(time, mine, _units(setting, rows, {row.batch for row in mine}), floor)
    draw_memory(memory, mine)
    figure.supxlabel("batch size B (pairs)", fontsize=10)
    return figure


def _units(setting: Setting, rows: Sequence[Row], batches: Collection[int]) -> dict[int, float]:
    """The unit's milliseconds by batch, ascending. It is the same whatever the loss, so all losses' rows tell it."""
    same = [row for row in rows if row.status == OK and setting_of(row)._replace(loss=setting.loss) == setting]
    found = sorted({row.batch for row in same}.intersection(batches))
    return {batch: median(row.unit_ms for row in same if row.batch == batch) for batch in found}


def _title(setting: Setting) -> str:
    width = f"D = {setting.dim}" + (f"/{setting.teacher_dim}" if setting.teacher_dim != setting.dim else "")
    variant = "" if setting.variant == "paper" else f" ({setting.variant})"
    where = setting.machine + (f", {threads(setting.threads)}" if setting.device == "cpu" else "")
    return f"{setting.loss}{variant}: {setting.dtype}, {width}, {where}"


def _suffix(setting: Setting, settings: Sequence[Setting]) -> str:
    """The loss, and whatever else tells this picture from the file's others."""
    parts = [setting.loss]
    for name in Setting._fields[1:]:
        if len({getattr(other, name) for other in settings}) > 1:
            value = getattr(setting, name)
            parts.append(f"{name}{value}" if isinstance(value, int) else re.sub(r"[^A-Za-z0-9.]+", "-", value))
    return "-".join(parts)
