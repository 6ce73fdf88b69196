"""One line of the result file: who took which steps, how long they took, and where."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import median

from harness.bench.losses.rows import Origin
from harness.bench.losses.timing import Percentiles
from harness.bench.train.parts import PARTS
from harness.errors import UserError
from harness.files import cut_half_line, named, read_bytes

_DIGITS = 6


@dataclass(frozen=True)
class TrainSetting:
    """What every trainer has in common."""

    recipe: str
    objective: str
    data: str
    student: str
    student_parameters: int
    teacher: str
    teacher_parameters: int
    teacher_cache: bool
    image_size: int
    batch: int
    accum_freq: int
    precision: str
    compile: bool
    channels_last: bool
    workers: int
    device: str
    threads: int


@dataclass(frozen=True)
class TrainRow:
    """One trainer's steps; what is not known of it is None.

    Times are milliseconds. A speedup is how many times as many images a second clipkd trains as this trainer does, in
    one round. `idle` is a share, 0 to 1. `flops` are those of a step, unknown of a step that others take with their
    teacher and we without; `matmul_flops_per_second` is the rate of a large matrix product, taken between the rounds.
    """

    trainer: str
    setting: TrainSetting
    origin: Origin
    steps: int
    rounds: int
    step: Percentiles
    images_per_second: float
    speedups: tuple[float, ...]
    parts: dict[str, Percentiles]
    idle: float | None
    flops: int | None
    matmul_flops_per_second: float
    peak_bytes: int

    @property
    def flops_per_second(self) -> float | None:
        """What the step needs over the time it takes."""
        return None if self.flops is None else 1e3 * self.flops / self.step.median

    @property
    def matmul_share(self) -> float | None:
        """That over the rate of a large matrix product."""
        rate = self.flops_per_second
        return None if rate is None else rate / self.matmul_flops_per_second

    def cells(self) -> dict[str, object]:
        """By column."""
        spreads = {"step": self.step, **{part: self.parts.get(part) for part in PARTS}}
        times = {key: value for name, spread in spreads.items() for key, value in _three(name, spread).items()}
        return {
            "trainer": self.trainer,
            **asdict(self.setting),
            "steps": self.steps,
            "rounds": self.rounds,
            "images_per_second": self.images_per_second,
            "speedup": median(self.speedups) if self.speedups else None,
            "speedup_min": min(self.speedups, default=None),
            "speedup_max": max(self.speedups, default=None),
            **times,
            "idle": self.idle,
            "flops": self.flops,
            "flops_per_second": self.flops_per_second,
            "matmul_flops_per_second": self.matmul_flops_per_second,
            "matmul_share": self.matmul_share,
            "peak_bytes": self.peak_bytes,
            **{field.name: getattr(self.origin, field.name) for field in fields(Origin)},
        }


COLUMNS = (
    "trainer",
    *(field.name for field in fields(TrainSetting)),
    *("steps", "rounds", "images_per_second", "speedup", "speedup_min", "speedup_max"),
    *(f"{name}_{value}" for name in ("step", *PARTS) for value in ("ms", "p20", "p80")),
    *("idle", "flops", "flops_per_second", "matmul_flops_per_second", "matmul_share", "peak_bytes"),
    *(field.name for field in fields(Origin)),
)


def check_file(path: Path) -> None:
    """Refuse a file that is not such a CSV, before anything is measured for it.

    Raises:
        UserError: when `clipkd bench train` did not write it.
    """
    content = read_bytes(path) if path.exists() else b""
    header = ",".join(COLUMNS).encode() + b"\n"
    # A run may have been killed while it wrote the first line.
    if not (content.startswith(header) or header.startswith(content)):
        raise UserError(
            f"{path} is not a result file of this version of clipkd bench train (its columns differ); "
            "choose another --out or move it away"
        )


def append_rows(path: Path, rows: Sequence[TrainRow]) -> None:
    """Add lines to the CSV, which is made with its folder where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with named(path):
        cut_half_line(path)
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            if file.tell() == 0:
                writer.writeheader()
            writer.writerows({name: _text(value) for name, value in row.cells().items()} for row in rows)


def _three(name: str, spread: Percentiles | None) -> dict[str, float | None]:
    low, middle, high = (spread.p20, spread.median, spread.p80) if spread else (None, None, None)
    return {f"{name}_ms": middle, f"{name}_p20": low, f"{name}_p80": high}


def _text(value: object) -> str:
    return "" if value is None else f"{value:.{_DIGITS}g}" if isinstance(value, float) else str(value)
