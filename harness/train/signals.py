"""Graceful SIGTERM: the current step is finished and saved first; after the training the run exits at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from harness.errors import Terminated


@contextmanager
def watch_for_sigterm() -> Iterator[Callable[[], bool]]:
    """Yield a function that says whether SIGTERM has come since."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set  # Python hands signals to the main thread alone: whoever runs that decides
        return

    with _at_sigterm(asked.set):
        yield asked.is_set


@contextmanager
def exit_on_sigterm(sentence: str) -> Iterator[None]:
    """Raise Terminated with this sentence once SIGTERM comes: for work that may be thrown away and done again.

    More of them are ignored until this is left: a scheduler and torchrun send one each.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    own = os.getpid()

    def leave() -> None:
        mine = os.getpid() == own
        signal.signal(signal.SIGTERM, signal.SIG_IGN if mine else signal.SIG_DFL)
        if mine:
            raise Terminated(sentence)
        os.kill(os.getpid(), signal.SIGTERM)  # a data worker, forked meanwhile: it ends as it always does

    with _at_sigterm(leave):
        yield


@contextmanager
def _at_sigterm(do: Callable[[], None]) -> Iterator[None]:
    def handle(number: int, frame: FrameType | None) -> None:
        do()

    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
