"""A test that leaves a process behind fails by its name, and the process is killed.

Looked for are children of this process, their children, and orphans: processes that lost their parent but carry our
mark in their environment. A fixture that keeps processes for several tests says so with
`keep(pid)`; what those start is theirs, and they must be gone when the last test ends.
"""

from __future__ import annotations

import contextlib
import gc
import os
import time
from collections.abc import Generator, Iterable

import psutil
import pytest

MARK = "KDLOSSES_TEST_WORKER"  # an environment variable: our processes' descendants inherit it
GRACE = 5.0  # seconds that a process may take to end after its test
# Helpers that Python and torch start once and keep until the interpreter ends.
_OF_PYTHON = ("multiprocessing.resource_tracker", "multiprocessing.forkserver", "_inductor/compile_worker")
_kept: set[int] = set()
_at_start: set[int] = set()
_before = pytest.StashKey[set[int]]()


def keep(pid: int) -> None:
    """Let this process, and what it starts, outlive the test that runs now."""
    _kept.add(pid)


def pytest_configure() -> None:
    os.environ[MARK] = str(os.getpid())
    _at_start.update(psutil.pids())


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None]:
    item.stash[_before] = set(psutil.pids())
    return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None]:
    try:
        return (yield)
    finally:
        is_last = nextitem is None
        left = _left_behind(_at_start if is_last else item.stash[_before], set() if is_last else _kept)
        if left:
            lines = [f"{process.pid}: {_command(process)}" for process in left]
            for process in left:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            pytest.fail("this test left processes behind:\n" + "\n".join(lines), pytrace=False)


def _left_behind(known: set[int], kept: set[int]) -> list[psutil.Process]:
    """Ours among the processes that are not `known` and still live when the grace is over."""
    deadline, collected = time.monotonic() + GRACE, False
    while True:
        left = _ours(set(psutil.pids()) - known, kept)
        if not left or time.monotonic() > deadline:
            return left
        if not collected:  # an expected error's traceback may be a cycle that holds the loader, and it its workers
            gc.collect()
            collected = True
        time.sleep(0.02)


def _ours(pids: Iterable[int], kept: set[int]) -> list[psutil.Process]:
    found = []
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            ancestors = [parent.pid for parent in process.parents()]
            if kept & {pid, *ancestors} or process.status() == psutil.STATUS_ZOMBIE:
                continue
            if (os.getpid() in ancestors or _is_orphan_of_ours(process)) and not _is_of_python(process):
                found.append(process)
    return found


def _is_orphan_of_ours(process: psutil.Process) -> bool:
    return process.ppid() == 1 and process.environ().get(MARK) == str(os.getpid())


def _is_of_python(process: psutil.Process) -> bool:
    return any(part in _command(process) for part in _OF_PYTHON)


def _command(process: psutil.Process) -> str:
    return " ".join(process.cmdline())[:300]
