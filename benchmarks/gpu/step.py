"""Common parts of all steps: arguments, the journal of cases, and a table that is flushed after every row."""

from __future__ import annotations

import argparse
import csv
import gc
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

import kdlosses
from harness.files import cut_half_line

OK, FAILED = "ok", "failed"
# After a fault in a kernel every later call of that process fails too: leave it, so that a new one goes on.
DEVICE_LOST = 70


@dataclass(frozen=True)
class Arguments:
    """A step's command line.

    Args:
        out: folder of the results.
        work: folder of everything else: journals, run folders.
        tiny: a few small cases, on any machine.
        commit: of the code.
        command: the whole day's, for the record.
    """

    out: Path
    work: Path
    tiny: bool
    commit: str
    command: str

    @property
    def device(self) -> str:
        """The GPU where there is one."""
        return "cuda" if torch.cuda.is_available() else "cpu"

    def flags(self) -> list[str]:
        """These arguments as words of a command."""
        words = ["--out", str(self.out), "--work", str(self.work), "--commit", self.commit, "--command", self.command]
        return [*words, *(["--tiny"] if self.tiny else [])]


def parse(words: Sequence[str]) -> Arguments:
    """The arguments that `Arguments.flags` gives."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--commit", default="")
    parser.add_argument("--command", default="")
    parser.add_argument("--tiny", action="store_true")
    return Arguments(**vars(parser.parse_args(words)))


def about(given: Arguments) -> dict[str, str]:
    """What a number needs beside it to mean something: device, versions, commit, command, time."""
    return {
        "device": device_name(given.device),
        "kdlosses": kdlosses.__version__,
        "torch": str(torch.__version__),
        "triton": version_of("triton"),
        "commit": given.commit,
        "command": given.command,
        "date": now(),
    }


def now() -> str:
    """The time as ISO 8601, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def device_name(device: str) -> str:
    """As its maker writes it."""
    return torch.cuda.get_device_name() if device == "cuda" else f"CPU, {os.cpu_count()} cores"


def version_of(package: str) -> str:
    """An installed package's version, or an empty string."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


class Journal:
    """Which cases have begun: a line is added before each, so that one which ends the process is known to the next."""

    def __init__(self, path: Path) -> None:
        self._path = path
        cut_half_line(path)

    @property
    def begun(self) -> list[str]:
        """Names of the cases, in order."""
        return self._path.read_text(encoding="utf-8").splitlines() if self._path.exists() else []

    def begin(self, case: str) -> None:
        """Write it down."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(case + "\n")


class CaseTable:
    """A CSV with one row a case, complete on the disk before the next case begins.

    Args:
        path: of the CSV; what it holds already stays.
        journal: of the cases.
        columns: of the case and its numbers, in order.
        given: the step's arguments.
    """

    def __init__(self, path: Path, journal: Journal, columns: Sequence[str], given: Arguments) -> None:
        self._path, self._journal, self._given = path, journal, given
        cut_half_line(path)
        self._columns = ["case", *columns, "status", "note", *about(given)]

    def run(self, cases: Mapping[str, Callable[[], Mapping[str, object]]]) -> None:
        """Run every case that has no row yet. A case returns its numbers; one that raises has failed, with the reason.

        Raises:
            SystemExit: after a case that leaves the device unusable.
        """
        done = {row["case"] for row in read_csv(self._path)}
        for case in self._journal.begun:
            if case not in done:
                self._write(case, {"status": FAILED, "note": "the process crashed or hung in this case"})
                done.add(case)
        for case, measure in cases.items():
            if case in done:
                continue
            self._journal.begin(case)
            self._write(case, attempt(measure))
            leave_if_device_is_lost(self._given.device)

    def _write(self, case: str, values: Mapping[str, object]) -> None:
        row = {"case": case, **values, **about(self._given)}
        with self._path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._columns, restval="", lineterminator="\n")
            if file.tell() == 0:
                writer.writeheader()
            writer.writerow(row)
            file.flush()
            os.fsync(file.fileno())


def attempt(measure: Callable[[], Mapping[str, object]]) -> dict[str, object]:
    """A case's numbers with a status; the reason and no numbers where it raises."""
    try:
        found = measure()
    except Exception as error:
        traceback.print_exc()
        words = " ".join(str(error).split())[:300]
        return {"status": FAILED, "note": f"{type(error).__name__}: {words}"}
    finally:
        gc.collect()
    return {"status": OK, **found}


def leave_if_device_is_lost(device: str) -> None:
    """End the process where the last case has left the GPU unusable.

    Raises:
        SystemExit: with `DEVICE_LOST`.
    """
    if device != "cuda":
        return
    try:
        torch.cuda.synchronize()
    except RuntimeError as error:
        print(f"the GPU cannot be used any more by this process: {error}", file=sys.stderr, flush=True)
        # No cleaning up: destructors of tensors would fail on the same fault.
        os._exit(DEVICE_LOST)


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a table; none where it is not there."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(_complete(csv.DictReader(file)))


def _complete(rows: csv.DictReader[str]) -> Iterator[dict[str, str]]:
    # A process killed while it wrote leaves a line with too few cells.
    return (row for row in rows if None not in row.values())
