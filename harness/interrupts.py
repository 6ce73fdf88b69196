"""Signals: Ctrl-C reaches the command at a safe line while it starts processes, and its workers never; their names."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from types import FrameType


@contextmanager
def deferred_interrupt() -> Iterator[None]:
    """Let Ctrl-C interrupt at the end of the block, which must be short, instead of inside it.

    For library code that a KeyboardInterrupt between two of its lines would leave half done.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield  # Python interrupts the main thread alone, and nothing where the signal is ignored
        return
    arrived: list[tuple[int, FrameType | None]] = []
    signal.signal(signal.SIGINT, lambda number, frame: arrived.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if arrived:
            before(*arrived[0])


@contextmanager
def deaf_to_ctrl_c() -> Iterator[None]:
    """Let Ctrl-C come after the block, and never to the processes that are started in it.

    The signals that a process blocks are inherited; one that it ignores is ignored only once its code says so.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def signal_name(number: int) -> str:
    """As SIGKILL; real-time signals have numbers alone."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def start_fork_server() -> None:
    """Start Python's fork server, unless it runs, so that it and its processes are deaf to Ctrl-C from birth."""
    resource_tracker.ensure_running()  # the fork server starts it, and its start unblocks the signal
    with deaf_to_ctrl_c():
        forkserver.ensure_running()
