"""Exit of data worker processes: not at the first SIGTERM or SIGHUP, and always with their trainer."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from multiprocessing.connection import Connection
from multiprocessing.queues import Queue
from types import FrameType, TracebackType

from harness.orphans import end_with_parent

# Seconds within which several SIGTERMs are one wish to stop, and those that a worker then has left; torchrun gives 30.
_ONE_STOP = 5.0
_LAST_WORK = 60


def start_worker(closed: Connection | None = None) -> None:
    """What every data worker does first: it is to end with its trainer, and to do so without a word.

    Args:
        closed: becomes readable when the loader is closed.
    """
    end_with_parent(closed)
    sys.excepthook = _report_unless_cut_off
    Queue._on_queue_feeder_error = staticmethod(_drop)  # type: ignore[attr-defined]


def _report_unless_cut_off(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    # From a thread that hands batches over: there is nobody at the other side any more.
    if not issubclass(kind, ConnectionError | EOFError):
        sys.__excepthook__(kind, error, trace)


def _drop(error: Exception, batch: object) -> None:
    if not isinstance(error, ConnectionError | EOFError):
        traceback.print_exception(error)


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
