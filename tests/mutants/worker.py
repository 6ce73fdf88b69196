"""Tries one mutant: a copy of the checkout with the fault in it, and pytest in a forked, already warm process."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from tests.mutants.mutant import ROOT, Mutant
from tests.mutants.related import targets

TIERS = {"fast": ["-m", "not slow"], "full": []}
# Slow to import and never mutated: imported once, before forking.
_WARM = ("torch", "torch._dynamo", "hypothesis", "numpy", "open_clip", "pydantic", "typer", "webdataset")
_FAILURES = ("FAILED ", "ERROR ")
_KILLED = (1, 2)  # pytest's exit codes: a test failed, or a module could not be imported


def warm_up() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ.setdefault("TRITON_INTERPRET", "1")  # as tests/conftest.py: triton decides at its first import
    sys.dont_write_bytecode = False  # hundreds of runs import the same tests from the copy
    for name in _WARM:
        __import__(name)


def copy_checkout(folder: Path) -> None:
    """What git tracks or would track, as it is in the working tree."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, cwd=ROOT, capture_output=True, check=True, text=True).stdout.split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


def attempt(mutant: Mutant, tier: str, folder: Path, limit: float) -> dict[str, object]:
    """One result: killed (by which test), survived, or neither within the time limit."""
    file = folder / mutant.file
    original = file.read_text(encoding="utf-8")
    file.write_text(mutant.applied(original), encoding="utf-8")
    start, log = time.monotonic(), folder / "mutant.log"
    try:
        code = _run(folder, [*TIERS[tier], *mutant.tests], log, limit) if mutant.tests else None
        if code not in _KILLED:  # the test that is known to notice may have gone, or been renamed
            code = _run(folder, [*TIERS[tier], *targets(mutant, folder)], log, limit)
    finally:
        file.write_text(original, encoding="utf-8")
    outcome = "killed" if code in _KILLED else "timed out" if code is None else "survived"
    if code in (3, 4):
        raise RuntimeError(f"{mutant.name}: pytest could not run: {log.read_text(encoding='utf-8')[-500:]}")
    by = _first_failure(log) if outcome == "killed" else ""
    return {"outcome": outcome, "by": by, "seconds": round(time.monotonic() - start, 1)}


def failing_without_mutant(tests: list[str], folder: Path) -> set[str]:
    """Those of `tests` that fail in a faultless copy too, and so have killed nothing."""
    log = folder / "mutant.log"
    if not tests or _run(folder, tests, log, limit=3600, first_only=False) == 0:
        return set()
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return {_test_of(line) for line in lines if line.startswith(_FAILURES)} or set(tests)


def _run(folder: Path, arguments: list[str], log: Path, limit: float, first_only: bool = True) -> int | None:
    """Pytest's exit code; None when it was stopped at the limit."""
    child = os.fork()
    if not child:
        _become_pytest(folder, [*(["-x"] if first_only else []), *arguments], log)
    deadline = time.monotonic() + limit
    try:
        while time.monotonic() < deadline:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.1)
        return None
    finally:  # at the limit, when interrupted, and for what a faulty child left behind
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)


def _become_pytest(folder: Path, arguments: list[str], log: Path) -> None:
    code = 3
    try:
        os.setsid()
        os.chdir(folder)
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1)
        os.dup2(out, 2)
        for name in [name for name in sys.modules if name.partition(".")[0] in ("tests", "kdlosses", "harness")]:
            del sys.modules[name]
        sys.path[:] = [str(folder), *(path for path in sys.path if Path(path or ".").resolve() != ROOT)]
        os.environ["PYTHONPATH"] = str(folder)
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        sys.dont_write_bytecode = True
        import pytest

        code = int(pytest.main(["-q", "-p", "no:cacheprovider", *arguments]))
    finally:
        sys.stdout.flush()
        os._exit(code)


def _first_failure(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    failures = (line for line in lines if line.startswith(_FAILURES))
    return _test_of(next(failures, lines[-1] if lines else "pytest did not start"))


def _test_of(line: str) -> str:
    return line.removeprefix("FAILED ").removeprefix("ERROR ").split(" - ")[0]
