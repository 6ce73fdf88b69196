"""A step in a process of its own: with a time limit, restarted where it crashes or hangs, killed with its children."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
# A restart costs the imports and a CUDA context; with less time left it would measure nothing.
LEAST_SECONDS = 10.0
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Ending:
    """How a step ended: ``"ok"``, ``"failed"``, ``"stalled"`` or ``"out of time"``; the last words where it is not ok.

    Args:
        status: see above.
        seconds: what it took.
        starts: how many processes it took: one more for each crash or stall.
        note: the last line that a failed step wrote.
    """

    status: str
    seconds: float
    starts: int
    note: str = ""


def run_step(
    command: Sequence[str], *, limit: float, stall: float, journal: Path, log: Path, env: Mapping[str, str] = {}
) -> Ending:
    """Run a step until it is done, starting it again after a crash or a stall as long as that brings new cases.

    Args:
        command: of the process.
        limit: seconds for all starts together.
        stall: seconds after which a case that has not ended counts as hanging.
        journal: the file to which the step adds a line at the beginning of each case.
        log: where its output goes.
        env: variables to set for it.
    """
    start, starts, ending = time.monotonic(), 0, "failed"
    while True:
        begun, starts = _size(journal), starts + 1
        left = limit - (time.monotonic() - start)
        ending = _run_once(command, left, stall, journal, log, env)
        left = limit - (time.monotonic() - start)
        again = ending in ("failed", "stalled") and _size(journal) > begun and left > LEAST_SECONDS
        if not again:
            note = "" if ending == "ok" else _last_line(log)
            return Ending(ending, time.monotonic() - start, starts, note)


def _run_once(
    command: Sequence[str], limit: float, stall: float, journal: Path, log: Path, env: Mapping[str, str]
) -> str:
    with log.open("ab") as out:
        # A session of its own, so that everything the step starts can be killed with it.
        process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **env}, stdout=out, stderr=out, start_new_session=True
        )
    try:
        return _wait(process, limit, stall, journal)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait(process: subprocess.Popen[bytes], limit: float, stall: float, journal: Path) -> str:
    now = time.monotonic()
    deadline, size, changed = now + limit, _size(journal), now
    while process.poll() is None:
        time.sleep(_POLL_SECONDS)
        now = time.monotonic()
        if _size(journal) != size:
            size, changed = _size(journal), now
        if now > deadline:
            return "out of time"
        if now > changed + stall:
            return "stalled"
    return "ok" if process.returncode == 0 else "failed"


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "")
