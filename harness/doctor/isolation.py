"""Runs each check in a process of its own: one that raises, crashes or hangs is a row and not the end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from harness.doctor.checks import Check
from harness.doctor.finding import Finding, anonymous
from harness.interrupts import signal_name

# The child imports what this process would: `python -m` would put the current folder first, with all that lies there.
_START = (
    "import sys; sys.path[:] = sys.argv.pop(1).split('\\n'); from harness.doctor.child import run; run(*sys.argv[1:])"
)


def run_checks(checks: Sequence[Check], folder: Path) -> Iterator[Finding]:
    """Yield the findings in the order of ``checks``; those that are not `alone` run side by side."""
    with tempfile.TemporaryDirectory(prefix="clipkd-doctor-") as scratch:
        started = {check: CheckProcess(check, folder, Path(scratch)) for check in checks if not check.alone}
        try:
            for check in checks:
                if check.alone:
                    for process in started.values():
                        process.wait()
                    started[check] = CheckProcess(check, folder, Path(scratch))
                yield from started[check].findings()
        finally:  # Ctrl-C too
            for process in started.values():
                process.kill()


class CheckProcess:
    """One running check.

    Args:
        check: which one.
        folder: what it is about, for the disk.
        scratch: an existing folder for what it reports.
    """

    def __init__(self, check: Check, folder: Path, scratch: Path) -> None:
        self._check = check
        self._report, self._log = scratch / f"{check.name}.jsonl", scratch / f"{check.name}.log"
        command = [sys.executable, "-c", _START, "\n".join(sys.path), check.function, str(folder), str(self._report)]
        with self._log.open("wb") as log:
            # A group of its own, so that whatever it starts ends with it. It ends itself when its standard input does,
            # which is when this process ends, however that happens.
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
            )
        self._deadline = time.monotonic() + check.limit
        self._hung = False

    def wait(self) -> None:
        """Wait for its end, at most until its limit."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(max(0.0, self._deadline - time.monotonic()))
        self._hung = self._hung or self._process.poll() is None
        self.kill()

    def kill(self) -> None:
        """End it and all that it started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):  # a process that waits for a dead disk cannot be killed
            self._process.wait(2)

    def findings(self) -> list[Finding]:
        """What it reported, and a fault if it did not come to its end."""
        self.wait()
        text = self._report.read_text(encoding="utf-8") if self._report.exists() else ""
        found = [Finding(**json.loads(line)) for line in text.splitlines(keepends=True) if line.endswith("\n")]
        code = self._process.returncode
        if self._hung:
            says = f"the check did not end within {self._check.limit:g} s"
        elif code:
            says = f"the check ended with {_ending(code)}{self._last_line()}"
        else:
            return found
        return [*found, Finding(self._check.name, "fault", says, self._check.hint)]

    def _last_line(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return f": {anonymous(lines[-1].strip())[:300]}" if lines else ""


def _ending(code: int) -> str:
    return f"exit code {code}" if code > 0 else signal_name(-code)
