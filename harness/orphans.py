"""Processes that end with the one that started them, however that one ends."""

from __future__ import annotations

import logging
import os
import runpy
import signal
import sys
import threading
import time
from functools import cache
from multiprocessing import process
from multiprocessing.connection import Connection
from pathlib import Path

logger = logging.getLogger(__name__)

# Seconds between two looks for the parent, and those that a process has once it is told to end; torch waits for 5.
_POLL = 1.0
_GRACE = 2.0
# Those that a rank has once its torchrun is gone.
_LAST_STEP = 6


def end_with_parent(closed: Connection | None = None) -> None:
    """Let this process, which another one of ours has started, end when that does, whatever it is doing by then.

    torch's own workers look for their parent only while they wait for work, so one that reads for ever stays for ever.
    A thread looks, as PR_SET_PDEATHSIG is about the thread that started the process and not about its process.

    Args:
        closed: becomes readable when the process is to end while its parent goes on.
    """
    threading.Thread(target=_watch, args=(os.getppid(), closed), daemon=True).start()


def child_command(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of ours in a process that ends with this one, even while it still imports."""
    return [sys.executable, "-m", "harness.orphans", str(os.getpid()), module, *arguments]


def main(parent: int, module: str, arguments: list[str]) -> None:
    """Run a module as `python -m` does, and end with the process that has started this one."""
    threading.Thread(target=_watch, args=(parent, None), daemon=True).start()
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


@cache
def end_with_torchrun() -> None:
    """Let this rank end soon after its torchrun, where that started it: nobody else would end it, or see it end.

    At first by SIGTERM, which saves the run if there is time.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        threading.Thread(target=_watch_torchrun, args=(os.getppid(),), daemon=True).start()


def _watch(parent: int, closed: Connection | None) -> None:
    while _is_there(parent):
        if closed is None:
            time.sleep(_POLL)
        elif closed.poll(_POLL):
            time.sleep(_GRACE)  # most workers end by themselves: torch has told them too
            break
    _end_commands(os.getpid())
    os._exit(0)  # any other status and torch takes it for a crash


def _watch_torchrun(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL)
    logger.warning("torchrun has ended; this process saves what it can within %d s, and ends too", _LAST_STEP)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_LAST_STEP)
    _end_commands(os.getpid())
    os._exit(1)


def _is_there(parent: int) -> bool:
    started_by = process.parent_process()
    # A fork server lives as long as its last child, so its id alone says nothing about the trainer.
    return os.getppid() == parent and (started_by is None or started_by.is_alive())


def _end_commands(pid: int) -> None:
    """End the programs behind pipe: and remote shards, which may wait for a network for ever, and other children."""
    try:
        tasks = [*Path(f"/proc/{pid}/task").iterdir()]
        children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:  # it has just ended, or this system does not say
        return
    for child in children:
        _end_commands(child)
        try:
            os.kill(child, signal.SIGKILL)
        except ProcessLookupError:
            continue


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
