"""The CSV that grows as cases are measured, and that a later run resumes."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable
from pathlib import Path

from harness.bench.losses.cases import Case
from harness.bench.losses.rows import COLUMNS, OK, OUT_OF_MEMORY, LossRow, Origin, from_cells, to_cells
from harness.errors import UserError
from harness.files import cut_half_line, named

# What these cases came to will not change; what was estimated may: with another time limit, or with more memory free.
SETTLED = (OK, OUT_OF_MEMORY)


class ResultFile:
    """Rows on disk and in memory. A row is written and flushed before the next case starts.

    Args:
        path: the CSV; made, with its folder, when the first row comes.

    Raises:
        UserError: when there is a file that `clipkd bench losses` did not write.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = read_rows(path) if path.exists() else []

    def append(self, row: LossRow) -> None:
        """Write one row to the disk, a header before the first."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with named(self.path):
            cut_half_line(self.path)
            with self.path.open("a", newline="", encoding="utf-8") as file:
                file.write(("" if file.tell() else _line(COLUMNS)) + _line(to_cells(row)))
                file.flush()
                os.fsync(file.fileno())
        self.rows.append(row)

    def settled(self, case: Case, source: Origin, rss: bool) -> LossRow | None:
        """The row that makes measuring `case` again needless: same case, machine, versions and commit."""
        for row in reversed(self.rows):
            fits = row.case == case and row.origin.same == source.same and row.status in SETTLED
            if fits and (row.rss_bytes is not None or row.status != OK or not rss):
                return row
        return None

    def foreign(self, cases: Iterable[Case], source: Origin) -> int:
        """How many of `cases` were measured on this machine, but with other versions or at another commit."""
        asked = set(cases)
        here = [row for row in self.rows if row.machine == source.machine and row.case in asked]
        ours = {row.case for row in here if row.origin.same == source.same}
        return len({row.case for row in here} - ours)


def read_rows(path: Path) -> list[LossRow]:
    """All whole rows, in the order they were measured.

    Raises:
        UserError: when the file is missing, or no result of `clipkd bench losses`.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; clipkd bench losses --out {path} makes it")
    text = path.read_text(encoding="utf-8", errors="replace")
    lines = csv.reader(io.StringIO(text[: text.rfind("\n") + 1], newline=""))
    header = next(lines, None)
    if header is None and _line(COLUMNS).startswith(text):
        return []  # a run was killed while it wrote the first line
    if header != list(COLUMNS):
        raise UserError(
            f"{path} is not a result file of this version of clipkd bench losses (its columns differ); "
            "choose another --out or move it away"
        )
    return [_row(path, number, cells) for number, cells in enumerate(lines, 2)]


def newest(rows: Iterable[LossRow]) -> list[LossRow]:
    """Of each case on each machine the last row, in the order in which the cases first came."""
    found: dict[tuple[Case, str], LossRow] = {}
    for row in rows:
        found[row.case, row.machine] = row
    return list(found.values())


def _row(path: Path, number: int, cells: list[str]) -> LossRow:
    try:
        return from_cells(dict(zip(COLUMNS, cells, strict=True)))
    except ValueError as error:
        raise UserError(f"{path}, line {number} is damaged ({error}); delete that line") from error


def _line(cells: Iterable[str]) -> str:
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator="\n").writerow(cells)
    return out.getvalue()
