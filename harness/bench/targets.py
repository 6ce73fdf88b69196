"""Targets of the backends, next to what was measured.

``python -m harness.bench.targets RESULTS.csv LARGE.json [OUT.md]`` reads a result file of ``clipkd bench losses`` and a
report of ``harness.bench.large_batch`` and prints a Markdown table. A number that is not in them is said to be missing.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from harness.bench.losses.resultfile import newest, read_rows
from harness.bench.losses.rows import OK, LossRow
from harness.files import write_text
from harness.records.reading import Count, Schema, Text, read_values

MIB = 2**20
MISSING = "not measured"
BATCH, GD_BATCH, DIM = 4096, 1024, 512
GPU_BATCH, HEADLINE, CARD_GIB = 32_768, 1_048_576, 80


class Target(NamedTuple):
    """One line: what was asked, the number found (None: missing), the bound, and whether it is an upper one."""

    asked: str
    found: float | None
    bound: float
    at_most: bool
    unit: str

    def cells(self) -> list[str]:
        """The line's cells."""
        sign = "at most" if self.at_most else "at least"
        asked = [self.asked, f"{sign} {self._with_unit(f'{self.bound:,g}')}"]
        if self.found is None:
            return [*asked, MISSING, ""]
        met = self.found <= self.bound if self.at_most else self.found >= self.bound
        return [*asked, self._with_unit(f"{self.found:,.3g}"), "yes" if met else "**no**"]

    def _with_unit(self, number: str) -> str:
        return f"{number} {self.unit}".strip()


class Large(Schema):
    """The report of `harness.bench.large_batch`."""

    batch: Count
    width: Count
    backend: Text
    peak_resident_mib: float
    relative_error_value: float
    relative_error_image_gradients: float = 0.0
    relative_error_text_gradients: float = 0.0
    device: Text
    command: Text
    date: Text


def main(arguments: Sequence[str]) -> None:
    """Print or write the table."""
    results, large = Path(arguments[0]), Path(arguments[1])
    text = markdown(read_rows(results), read_values(large, Large))
    if len(arguments) > 2:
        write_text(Path(arguments[2]), text)
    else:
        print(text, end="")


def markdown(rows: Sequence[LossRow], large: dict[str, Any]) -> str:
    """The table, and where its numbers come from."""
    lines = [["what", "asked", "measured", "met"], ["---"] * 4]
    lines += [target.cells() for target in targets(rows, large)]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    dates, commits = ({row.date[:10] for row in rows}, {row.commit for row in rows})
    source = f"`clipkd bench losses`, {', '.join(sorted(dates))}, commit {', '.join(sorted(commits))}"
    origin = f"{large['device']}; `{large['command']}`, {large['date'][:10]}"
    return f"{table}\nTime and memory: {source}. Largest batch: {origin}.\n"


def targets(rows: Sequence[LossRow], large: dict[str, Any]) -> list[Target]:
    """All targets: those that a CPU can be held to, and those that take a GPU."""
    return [*_on_a_cpu(_rows(rows, "cpu", "float32"), large), *gpu_targets(rows)]


def gpu_targets(rows: Sequence[LossRow]) -> list[Target]:
    """The targets that take a GPU."""
    return _on_a_gpu(_rows(rows, "cuda", "bfloat16"))


Found = dict[tuple[str, str, int], LossRow]


def _rows(rows: Sequence[LossRow], device: str, dtype: str) -> Found:
    """The newest row of each loss, implementation and batch."""
    fits = [row for row in newest(rows) if row.status == OK and row.dim == DIM]
    return {
        (row.loss, row.implementation, row.batch): row for row in fits if (row.device, row.dtype) == (device, dtype)
    }


def _figure(row: LossRow | None, column: str, unit: float = 1) -> float | None:
    value: float | None = None if row is None else getattr(row, column)
    return None if value is None else value / unit


def _on_a_cpu(found: Found, large: dict[str, Any]) -> list[Target]:
    case = f"`clip_kd`, B = {BATCH:,}"
    chunked, dense, formula = (found.get(("clip_kd", name, BATCH)) for name in ("chunked", "dense", "formula"))
    gd, gd_formula = (found.get(("gd", name, GD_BATCH)) for name in ("dense", "formula"))
    gd_case = f"`gd`, B = {GD_BATCH:,}, dense"
    errors = max(large[key] for key in large if key.startswith("relative_error"))
    huge = f"`clip_kd`, B = {large['batch']:,}, D = {large['width']}, {large['backend']}"
    return [
        Target(f"{case}, chunked: time", _figure(chunked, "matmuls"), 17, True, "x matmul"),
        Target(f"{case}, chunked: memory", _figure(chunked, "peak_bytes", MIB), 96, True, "MiB"),
        Target(f"{case}, dense: time", _figure(dense, "matmuls"), 12, True, "x matmul"),
        Target(
            f"{case}, dense: time against the formula's", _times(formula, dense, "matmuls"), 2, False, "times faster"
        ),
        Target(f"{case}, dense: memory", _figure(dense, "peak_bytes", MIB), 400, True, "MiB"),
        Target(f"{gd_case}: time against the formula's", _times(gd_formula, gd, "matmuls"), 100, False, "times faster"),
        Target(
            f"{gd_case}: memory against the formula's", _times(gd_formula, gd, "peak_bytes"), 100, False, "times less"
        ),
        Target(f"{huge}: the whole process", large["peak_resident_mib"] / 1024, 4, True, "GiB"),
        Target(f"{huge}: relative error against float64", errors, 1e-5, True, ""),
    ]


def _on_a_gpu(found: Found) -> list[Target]:
    case = f"B = {GPU_BATCH:,}, bfloat16, triton on a GPU"
    triton, dense = (found.get(("clip_kd", name, GPU_BATCH)) for name in ("triton", "dense"))
    ours, memeff = (found.get(("contrastive", name, GPU_BATCH)) for name in ("triton", "memeff"))
    headline = found.get(("clip_kd", "triton", HEADLINE))
    asked = 8 * GPU_BATCH * DIM * 4 / MIB
    return [
        Target(f"`clip_kd`, {case}: time", _figure(triton, "matmuls"), 30, True, "x matmul"),
        Target(f"`clip_kd`, {case}: memory", _figure(triton, "peak_bytes", MIB), asked, True, "MiB"),
        Target(f"`clip_kd`, {case}: time against dense's", _times(dense, triton, "matmuls"), 4, False, "times faster"),
        Target(
            f"`contrastive`, {case}: time against memeff's", _times(memeff, ours, "matmuls"), 1.5, False, "times faster"
        ),
        Target(
            f"`clip_kd`, B = {HEADLINE:,}, bfloat16, triton on one card: memory",
            _figure(headline, "peak_bytes", 2**30),
            CARD_GIB,
            True,
            "GiB",
        ),
    ]


def _times(theirs: LossRow | None, ours: LossRow | None, column: str) -> float | None:
    """How many times more theirs takes; in matmuls, so that a machine's speed at the moment cancels."""
    if theirs is None or ours is None:
        return None
    return getattr(theirs, column) / getattr(ours, column)


if __name__ == "__main__":
    main(sys.argv[1:])
