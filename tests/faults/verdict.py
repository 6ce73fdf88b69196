"""Damage an example, run the command on it, and say what is wrong about how that ended."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from random import Random

from harness.cli.guard import USAGE
from tests.faults.command import CPU_SECONDS, run
from tests.faults.damage import BYTES, damaged
from tests.faults.examples import PAIRS, copy
from tests.faults.formats import Case, Format

UNUSABLE, MISSING = 1, 3  # of `clipkd data check`, and of `clipkd eval`


@dataclass(frozen=True)
class Verdict:
    """What was done to which file, how the command ended, and what is wrong about that, if anything."""

    done: str
    ended: str
    wrong: str | None
    text: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.done}: {self.wrong or self.ended}\n{self.text[-1500:]}"


def good_result(form: Format, example: Path, parent: Path) -> str:
    """What the command makes of the undamaged example.

    Raises:
        AssertionError: it fails, so that nothing could be said about damaged ones.
    """
    folder = copy(example, parent)
    outcome = run(form.command(folder))
    assert outcome.code == 0, outcome
    return form.result(folder)


def try_fault(form: Format, example: Path, parent: Path, good: str, seed: str) -> Verdict:
    """One fault (`each`: one in every file), which the seed determines."""
    draw = Random(seed)
    folder = copy(example, parent)
    files = sorted({file for pattern in form.files for file in folder.glob(pattern) if file.is_file()})
    assert files, f"no file to damage in {folder}"
    done, content, file = "", b"", folder
    for file in files if form.each else [draw.choice(files)]:
        # Bytes of what is no text any more can still be damaged: several lines of one kind of damage give way to these.
        name, content = _damaged(file.read_bytes(), form, draw)
        done = f"{seed}: {file.relative_to(folder)}, {name}"
        _write(file, content)
    outcome = run(form.command(folder))
    wrong = _ended_badly(outcome.code, outcome.text)
    if wrong is None and outcome.code != USAGE:
        wrong = form.wrong(Case(outcome, file, content, form.result(folder), good))
    ended = {0: "used", UNUSABLE: "told", MISSING: "told", USAGE: "refused"}.get(outcome.code, "failed")
    return Verdict(done, ended, wrong, outcome.text, outcome.seconds)


def _damaged(content: bytes, form: Format, draw: Random) -> tuple[str, bytes]:
    try:
        return damaged(content, form.kinds, draw)
    except ValueError:  # not JSON, or not text: another file of the same patterns
        return damaged(content, BYTES, draw)


def _write(file: Path, content: bytes) -> None:
    """Replace what a link points at, and keep the link."""
    Path(os.path.realpath(file)).write_bytes(content)


def _ended_badly(code: int | None, text: str) -> str | None:
    if code is None:
        return f"still running after {CPU_SECONDS} s of the CPU"
    if "Traceback (most recent call last)" in text:
        return "a traceback"
    if code not in (0, UNUSABLE, USAGE, MISSING):
        return f"exit code {code}"
    sentences = len(re.findall(r"^error: ", text, re.MULTILINE))
    if code == USAGE and sentences != 1:
        return f"{sentences} sentences, and exit code {code}"
    return None


def faults(form: Format, fast: bool) -> int:
    """Number of commands of a tier."""
    number = form.fast if fast else form.full
    return number // PAIRS if form.each else number
