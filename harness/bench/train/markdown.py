"""A result file of ``clipkd bench train`` as Markdown: ``python -m harness.bench.train.markdown FILE.csv OUT.md``."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from harness.bench.losses.formats import digits, milliseconds
from harness.files import write_text

_HEAD = "| data | trainer | images/s | step | teacher | clipkd is |\n| --- | --- | ---: | ---: | ---: | ---: |\n"


def main(arguments: list[str]) -> None:
    """Read the file, write the table."""
    source, out = map(Path, arguments)
    with source.open(newline="", encoding="utf-8") as file:
        write_text(out, table(list(csv.DictReader(file))))


def table(rows: list[dict[str, str]]) -> str:
    """A line a row, and what they have in common beneath: setting, machine, commands."""
    lines = "".join(f"| {' | '.join(_cells(row))} |\n" for row in rows)
    first = rows[0]
    commands = ", ".join(dict.fromkeys(f"`{row['command']}`" for row in rows))
    commits = ", ".join(dict.fromkeys(row["commit"] for row in rows))
    return (
        f"{_HEAD}{lines}\n{first['recipe']}: {first['student']} <- {first['teacher']}, batch {first['batch']}, "
        f"{first['precision']}, {first['objective']}; {first['machine']}, {first['threads']} threads. Step: median; "
        "teacher: its share of our step; clipkd is: times as many images a second, median of the rounds (least to "
        f"most). {commands}, {first['date'][:10]}, commit {commits}; kdlosses "
        f"{first['kdlosses']}, torch {first['torch']}, open_clip {first['open_clip']}.\n"
    )


def _cells(row: dict[str, str]) -> list[str]:
    data = row["data"] + (", teacher cached" if row["teacher_cache"] == "True" else "")
    step, ours = float(row["step_ms"]), row["trainer"] == "clipkd"
    share = f"{float(row['teacher_ms']) / step:.0%}" if ours else ""
    spread = f"{float(row['speedup_min']):.2f} to {float(row['speedup_max']):.2f}" if row["speedup"] else ""
    speedup = f"{float(row['speedup']):.2f} x ({spread})" if row["speedup"] else ""
    return [data, row["trainer"], digits(float(row["images_per_second"])), milliseconds(step), share, speedup]


if __name__ == "__main__":
    main(sys.argv[1:])
