"""Checks that go wrong, for processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from harness.doctor.finding import Finding


def fine(folder: Path) -> Iterator[Finding]:
    print("noise of a library")
    yield Finding("fine", "ok", f"looked at {folder.name}")


def raises(_: Path) -> Iterator[Finding]:
    yield Finding("raises", "warning", "found before")
    raise ValueError("what went wrong")


def crashes(_: Path) -> Iterator[Finding]:
    yield Finding("crashes", "ok", "found before")
    os.kill(os.getpid(), signal.SIGSEGV)


def hangs(folder: Path) -> Iterator[Finding]:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    (folder / "started").write_text(f"{os.getpid()} {child.pid}")
    time.sleep(600)
    yield Finding("hangs", "ok", "never")


def lingers(_: Path) -> Iterator[Finding]:
    import threading

    threading.Thread(target=time.sleep, args=(600,)).start()
    yield Finding("lingers", "ok", "a thread stays")
