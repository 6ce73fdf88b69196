"""Real commands, told apart from all others on the machine by a token in their environment, which children inherit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

# Long enough for any machine; what is awaited comes in seconds.
LIMIT = 300


class Command:
    """A process in a session of its own, as a terminal starts it, and all that came of it."""

    def __init__(self, arguments: Sequence[str], folder: Path) -> None:
        self._token, self._output = f"CLIPKD_TEST_{uuid.uuid4().hex}", folder / f"{uuid.uuid4().hex}.log"
        environment = {**os.environ, self._token: "1", "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        with self._output.open("wb") as log:
            self.process = subprocess.Popen(
                arguments,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def output(self) -> str:
        """What all of them have printed so far."""
        return self._output.read_text(errors="replace")

    def living(self) -> set[int]:
        """The processes that live, zombies aside."""
        found = set()
        for process in psutil.process_iter():
            try:
                if process.status() != psutil.STATUS_ZOMBIE and self._token in process.environ():
                    found.add(process.pid)
            except psutil.Error:
                continue
        return found

    def until(self, text: str = "", processes: int = 1) -> None:
        """Wait until this has been printed and so many processes live."""
        self._wait(lambda: text in self.output() and len(self.living()) >= processes)

    def until_loaded(self, library: str) -> None:
        """Wait until the command has loaded a library."""
        self._wait(lambda: library in Path(f"/proc/{self.process.pid}/maps").read_text(), every=0.01)

    def interrupt(self) -> None:
        """Ctrl-C: every process of the terminal gets it."""
        os.killpg(self.process.pid, signal.SIGINT)

    def wait(self) -> int:
        """The command's exit code."""
        return self.process.wait(LIMIT)

    def until_nobody_lives(self, seconds: float = 30) -> None:
        """Wait until the last process is gone; those left behind would work for minutes, or wait for ever."""
        end = time.monotonic() + seconds
        while left := self.living():
            assert time.monotonic() < end, [psutil.Process(pid).cmdline() for pid in left]
            time.sleep(0.1)

    def kill_all(self) -> None:
        """Leave nothing behind, whatever the test has found."""
        for pid in self.living():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait(LIMIT)

    def _wait(self, condition, every: float = 0.1) -> None:
        end = time.monotonic() + LIMIT
        while not condition():
            assert self.process.poll() is None, f"it has ended with {self.process.returncode}: {self.output()}"
            assert time.monotonic() < end, self.output()
            time.sleep(every)


@contextmanager
def started(folder: Path, *arguments: str) -> Iterator[Command]:
    """``python ARGUMENTS`` until the end of the block."""
    command = Command([sys.executable, *arguments], folder)
    try:
        yield command
    finally:
        command.kill_all()
