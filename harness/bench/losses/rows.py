"""Rows of the result file, and where their numbers come from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from harness.bench.losses.cases import CASE_FIELDS, Case

OK = "ok"
OUT_OF_MEMORY = "out_of_memory"
PREDICTED_OUT_OF_MEMORY = "predicted_out_of_memory"
PREDICTED_TOO_SLOW = "predicted_too_slow"
UNSUPPORTED = "unsupported"
FAILED = "failed"
STATUSES = (OK, OUT_OF_MEMORY, PREDICTED_OUT_OF_MEMORY, PREDICTED_TOO_SLOW, UNSUPPORTED, FAILED)


@dataclass(frozen=True)
class Origin:
    """What a number needs beside it to mean something. An empty version: the package is not installed."""

    machine: str
    kdlosses: str
    torch: str
    open_clip: str
    memeff: str
    triton: str
    commit: str
    command: str
    date: str

    @property
    def same(self) -> tuple[str, ...]:
        """What must be equal for two measurements to count as one."""
        return (self.machine, self.kdlosses, self.torch, self.open_clip, self.memeff, self.triton, self.commit)


@dataclass(frozen=True)
class LossRow:
    """One case and what came of it; a number that there is not is None.

    Times are milliseconds over the repeats. `matmul_ms` is one B x D x B matrix product, `matmuls` the time of both
    passes over it. Peaks are bytes above the inputs; `rss_bytes` is the growth of a process of its own. `value` is the
    loss.
    """

    loss: str
    variant: str
    implementation: str
    batch: int
    dim: int
    teacher_dim: int
    dtype: str
    device: str
    threads: int
    machine: str
    status: str
    note: str = ""
    repeats: int | None = None
    forward_ms: float | None = None
    forward_p20: float | None = None
    forward_p80: float | None = None
    backward_ms: float | None = None
    backward_p20: float | None = None
    backward_p80: float | None = None
    both_ms: float | None = None
    both_p20: float | None = None
    both_p80: float | None = None
    matmul_ms: float | None = None
    matmuls: float | None = None
    peak_forward_bytes: int | None = None
    peak_bytes: int | None = None
    rss_bytes: int | None = None
    value: float | None = None
    kdlosses: str = ""
    torch: str = ""
    open_clip: str = ""
    memeff: str = ""
    triton: str = ""
    commit: str = ""
    command: str = ""
    date: str = ""

    @property
    def case(self) -> Case:
        """What was measured."""
        return Case(**{name: getattr(self, name) for name in CASE_FIELDS})

    @property
    def origin(self) -> Origin:
        """Where it was measured."""
        return Origin(**{field.name: getattr(self, field.name) for field in fields(Origin)})


COLUMNS = tuple(field.name for field in fields(LossRow))
_DIGITS = 6
_READ: dict[str, Callable[[str], Any]] = {"str": str, "int": int, "int | None": int, "float | None": float}
_TYPES = {field.name: str(field.type) for field in fields(LossRow)}


def make_row(case: Case, source: Origin, status: str, note: str = "", figures: Mapping[str, Any] = {}) -> LossRow:
    """A row of a case; `figures` are the numbers by column."""
    return LossRow(**asdict(case), **asdict(source), status=status, note=note, **figures)


def to_cells(row: LossRow) -> list[str]:
    """As it stands in the file; times to six digits."""
    values = (getattr(row, name) for name in COLUMNS)
    return [f"{v:.{_DIGITS}g}" if isinstance(v, float) else "" if v is None else str(v) for v in values]


def from_cells(cells: Mapping[str, str]) -> LossRow:
    """The row that `to_cells` wrote.

    Raises:
        ValueError: for a number that is none.
    """
    return LossRow(**{name: _parsed(name, cells[name]) for name in COLUMNS})


def _parsed(name: str, text: str) -> Any:
    kind = _TYPES[name]
    return None if text == "" and kind.endswith("None") else _READ[kind](text)
