"""Try every fault and print a table for docs/reliability.md: `python -m tests.faults [--fast] [--only NAME]`."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.faults.examples import PAIRS
from tests.faults.formats import FORMATS, Format
from tests.faults.verdict import Verdict, faults, good_result, try_fault


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--fast", action="store_true", help="the faults of the fast tier alone")
    parser.add_argument("--only", default="", help="formats whose name holds this text")
    parser.add_argument("--jobs", type=int, default=2, help="commands at a time")
    args = parser.parse_args()
    print("| format | faults | refused | told | used | wrong | longest, s of the CPU |")
    print("|---|---|---|---|---|---|---|")
    wrong: list[Verdict] = []
    for name, form in FORMATS.items():
        if args.only in name:
            verdicts = _try_all(name, form, args)
            wrong += [verdict for verdict in verdicts if verdict.wrong]
            print(_row(name, form, verdicts), flush=True)
    for verdict in wrong:
        print(f"\n{verdict}")
    return bool(wrong)


def _try_all(name: str, form: Format, args: argparse.Namespace) -> list[Verdict]:
    with tempfile.TemporaryDirectory(prefix="faults-") as root, ThreadPoolExecutor(args.jobs) as pool:
        folder = Path(root)
        (folder / "good").mkdir()
        form.example(folder / "good")
        good = good_result(form, folder / "good", folder / "copy")

        def try_number(number: int) -> Verdict:
            return try_fault(form, folder / "good", folder / str(number), good, f"{name} {number}")

        return list(pool.map(try_number, range(faults(form, args.fast))))


def _row(name: str, form: Format, verdicts: list[Verdict]) -> str:
    ended = Counter(verdict.ended for verdict in verdicts if not verdict.wrong)
    number = len(verdicts) * (PAIRS if form.each else 1)
    wrong = sum(verdict.wrong is not None for verdict in verdicts)
    longest = max(verdict.seconds for verdict in verdicts)
    cells = [name, number, ended["refused"], ended["told"], ended["used"], wrong, f"{longest:.1f}"]
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    sys.exit(main())
