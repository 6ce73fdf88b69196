"""Graceful SIGTERM and SIGHUP: the current step is finished and saved first; after the training the run exits at once.

SIGHUP comes when the terminal or the connection is closed; a run that is started to ignore it, as by nohup, does.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from harness.errors import Terminated


def stop_signals() -> list[signal.Signals]:
    """The signals that ask this process to stop: SIGTERM, and SIGHUP unless it is ignored."""
    return [signal.SIGTERM, *([] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP])]


@contextmanager
def watch_for_sigterm() -> Iterator[Callable[[], bool]]:
    """Yield a function that says whether SIGTERM, or SIGHUP, has come since."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set  # Python hands signals to the main thread alone: whoever runs that decides
        return

    with _at_stop_signal(lambda number: asked.set()):
        yield asked.is_set


@contextmanager
def exit_on_sigterm(sentence: str) -> Iterator[None]:
    """Raise Terminated with this sentence once SIGTERM or SIGHUP comes: for work that may be done again.

    More of them are ignored until this is left: a scheduler and torchrun send one each.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    own, stops = os.getpid(), stop_signals()

    def leave(number: int) -> None:
        mine = os.getpid() == own
        for stop in stops:
            signal.signal(stop, signal.SIG_IGN if mine else signal.SIG_DFL)
        if mine:
            raise Terminated(sentence)
        os.kill(os.getpid(), number)  # a data worker, forked meanwhile: it ends as it always does

    with _at_stop_signal(leave):
        yield


@contextmanager
def _at_stop_signal(do: Callable[[int], None]) -> Iterator[None]:
    def handle(number: int, frame: FrameType | None) -> None:
        do(number)

    before = {stop: signal.signal(stop, handle) for stop in stop_signals()}
    try:
        yield
    finally:
        for stop, handler in before.items():
            signal.signal(stop, handler)
