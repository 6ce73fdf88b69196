"""Rows of a benchmark that nobody measured, for tests of what is done with them."""

from __future__ import annotations

from dataclasses import replace

from harness.bench.losses.cases import CASE_FIELDS, Case
from harness.bench.losses.rows import OK, LossRow, Origin, make_row

CASE = Case("crd", "paper", "dense", 256, 512, 512, "float32", "cpu", 2)
ORIGIN = Origin(
    "Machine, 2 cores", "0.1.0", "2.6.0", "3.3.0", "", "3.2.0", "abc123", "clipkd bench losses", "2026-01-02"
)


def row(status: str = OK, note: str = "", **changes: object) -> LossRow:
    """An ok row takes 10 ms and 1 MiB at B = 256 and grows with B x B, unless `changes` say otherwise."""
    case = replace(CASE, **{name: changes.pop(name) for name in CASE_FIELDS if name in changes})
    source = replace(ORIGIN, **{name: changes.pop(name) for name in vars(ORIGIN) if name in changes})
    grown = (case.batch / 256) ** 2
    figures: dict[str, object] = {}
    if status == OK:
        figures = {f"{part}_{what}": 5.0 * grown for part in ("forward", "backward") for what in ("ms", "p20", "p80")}
        figures |= {"both_ms": 10.0 * grown, "both_p20": 9.0 * grown, "both_p80": 12.0 * grown}
        figures |= {"matmul_ms": grown, "matmuls": 10.0, "repeats": 10, "value": 1.5}
        figures |= {"peak_forward_bytes": int(2**19 * grown), "peak_bytes": int(2**20 * grown)}
    return make_row(case, source, status, note, {**figures, **changes})
