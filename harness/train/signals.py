"""SIGTERM as a wish: the step under way is finished and saved before the run leaves."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def watching_for_sigterm() -> Iterator[Callable[[], bool]]:
    """Yield a function that says whether SIGTERM has come since."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set  # Python hands signals to the main thread alone: whoever runs that decides
        return

    def note(number: int, frame: FrameType | None) -> None:
        asked.set()

    before = signal.signal(signal.SIGTERM, note)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGTERM, before)
