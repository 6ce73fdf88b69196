"""A GPU day's folder as Markdown: ``python -m benchmarks.gpu.tables FOLDER [OUT.md]``.

A summary of a line a step comes first, then the targets, the losses by batch and width, and training. What has no file
in the folder is "not measured", so that a day that was cut short still has its tables.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.gpu.step import OK, read_csv
from harness.bench.losses.markdown import markdown
from harness.bench.losses.resultfile import newest, read_rows
from harness.bench.losses.rows import LossRow
from harness.bench.targets import MISSING, gpu_targets
from harness.bench.train.markdown import table as train_table
from harness.files import write_text

UNSUPPORTED = "unsupported"
Rows = Sequence[dict[str, str]]


def main(arguments: Sequence[str]) -> None:
    """Print or write the tables."""
    text = tables(Path(arguments[0]))
    if len(arguments) > 1:
        write_text(Path(arguments[1]), text)
    else:
        print(text, end="")


def tables(folder: Path) -> str:
    """All tables of a folder."""
    losses, train = _losses(folder), read_csv(folder / "train.csv")
    parts = [
        summary(folder),
        _table(["what", "asked", "measured", "met"], [target.cells() for target in gpu_targets(losses)]),
        *([markdown(losses, sorted({row.batch for row in losses}))] if losses else []),
        *([train_table(train)] if train else []),
    ]
    return "\n".join(parts)


def summary(folder: Path) -> str:
    """The short table: of each step what was measured, how many cases are fine, and what is not."""
    names = ("agreement", "mechanics", "train_cases")
    agreement, mechanics, train = (read_csv(folder / f"{name}.csv") for name in names)
    losses = [{"case": _label(row), "status": row.status, "note": row.note} for row in _losses(folder)]
    lines = [_agreement(agreement, *key) for key in dict.fromkeys(_kind(row) for row in agreement if row["backend"])]
    # A case that raised or crashed has no backend: it is known by its name alone.
    lost = [row for row in agreement if not row["backend"]]
    if lost or not agreement:
        lines.append(_line("agreement with float64" + (": no numbers" if lost else ""), lost))
    lines += [_line("mechanics of training", mechanics), _line("losses at large batches", losses)]
    return _table(["what", "ok", "remarks"], [*lines, _line("training steps", train)])


def _kind(row: dict[str, str]) -> tuple[str, str]:
    return row["backend"], row["dtype"]


def _agreement(rows: Rows, backend: str, dtype: str) -> list[str]:
    mine = [row for row in rows if _kind(row) == (backend, dtype)]
    value, gradient = (_worst(float(row[f"{name}_error"]) for row in mine) for name in ("value", "gradient"))
    what, ok, remarks = _line(f"agreement with float64: {backend}, {dtype}", mine)
    worst = f"largest error of a value {value:.1e}, of a gradient {gradient:.1e} (bound {mine[0]['bound']})"
    return [what, ok, "; ".join(part for part in (worst, remarks) if part)]


def _worst(errors: Iterable[float]) -> float:
    # max() alone would pass over a NaN.
    return max(errors, key=lambda error: (math.isnan(error), error))


def _line(what: str, rows: Rows) -> list[str]:
    if not rows:
        return [what, MISSING, ""]
    tried = [row for row in rows if row["status"] != UNSUPPORTED]
    fine = sum(row["status"] == OK for row in tried)
    remarks = [f"{row['case']}: {row['status']}{_note(row)}" for row in tried if row["status"] != OK]
    skipped = len(rows) - len(tried)
    remarks += [f"{skipped} unsupported"] if skipped else []
    return [what, f"{fine} of {len(tried)}", "; ".join(remarks)]


def _note(row: dict[str, str]) -> str:
    # A pipe in an error's text would end the cell.
    return f" ({row['note']})".replace("|", "\\|") if row["note"] else ""


def _losses(folder: Path) -> list[LossRow]:
    path = folder / "losses.csv"
    return newest(read_rows(path)) if path.exists() else []


def _label(row: LossRow) -> str:
    return f"{row.loss} by {row.implementation}, B = {row.batch:,}, D = {row.dim}"


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    return "".join(f"| {' | '.join(line)} |\n" for line in (head, ["---"] * len(head), *lines))


if __name__ == "__main__":
    main(sys.argv[1:])
