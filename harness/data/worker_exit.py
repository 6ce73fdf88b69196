"""Exit of data worker processes: not at the first SIGTERM or SIGHUP, and always with their trainer."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType

# Seconds within which several SIGTERMs are one wish to stop, and those that a worker then has left; torchrun gives 30.
_ONE_STOP = 5.0
_LAST_WORK = 60
# Seconds between two looks for the trainer, and those that a worker has once its loader is closed; torch waits for 5.
_POLL = 1.0
_GRACE = 2.0


def end_with_trainer(closed: Connection | None = None) -> None:
    """Let this worker process end when its trainer does, whatever it is doing by then.

    torch's own workers look for their parent only while they wait for work, so one that reads for ever stays for ever.
    A thread looks, as PR_SET_PDEATHSIG is about the thread that started the worker and not about its process.

    Args:
        closed: becomes readable when the loader is closed.
    """
    threading.Thread(target=_watch, args=(os.getppid(), closed), daemon=True).start()


def _watch(parent: int, closed: Connection | None) -> None:
    while _is_there(parent):
        if closed is None:
            time.sleep(_POLL)
        elif closed.poll(_POLL):
            time.sleep(_GRACE)  # most workers end by themselves: torch has told them too
            break
    _end_commands(os.getpid())
    os._exit(0)  # any other status and torch takes it for a crash


def _is_there(parent: int) -> bool:
    process = multiprocessing.parent_process()
    # A fork server lives as long as its last child, so its id alone says nothing about the trainer.
    return os.getppid() == parent and (process is None or process.is_alive())


def _end_commands(process: int) -> None:
    """End the programs behind pipe: and remote shards, which may wait for a network for ever."""
    try:
        tasks = [*Path(f"/proc/{process}/task").iterdir()]
        children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:  # it has just ended, or this system does not say
        return
    for child in children:
        _end_commands(child)
        try:
            os.kill(child, signal.SIGKILL)
        except ProcessLookupError:
            continue


def survive_first_sigterm() -> None:
    """Go on after a SIGTERM or SIGHUP and those that come with it, and after every SIGINT.

    A scheduler or a terminal sends them to all processes of a run, and torchrun hands its own on to them once more; the
    trainer, which then saves, needs its data until it stops its workers itself, by another SIGTERM if they take their
    time.
    """
    first = None

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal first
        now = time.monotonic()
        if first is None:
            first = now
        elif now - first < _ONE_STOP:
            signal.alarm(_LAST_WORK)  # whatever it was: nobody has to wait for this process for ever
        else:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, handle)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # under nohup the trainer goes on
        signal.signal(signal.SIGHUP, handle)
