"""Pillow's warnings about odd images, one for each of them: counted while a command runs, and said once at its end."""

from __future__ import annotations

import logging
import mmap
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

logger = logging.getLogger(__name__)

_SLOTS, _WIDTH, _TEXT = 1024, 8, 240
SIZE = _SLOTS * _WIDTH + _TEXT  # bytes of a count
_PILLOW = f"{os.sep}PIL{os.sep}"


class WarningCount:
    """A number of warnings and the first of them, in memory that processes share.

    Each process has a slot of its own by its process id: there is no lock that a killed worker could have died with.

    Args:
        memory: `SIZE` bytes of zeros, for processes that are not forked from this one.
    """

    def __init__(self, memory: Any = None) -> None:
        view = memoryview(mmap.mmap(-1, SIZE) if memory is None else memory).cast("B")
        self._slots, self._text = view[:-_TEXT].cast("q"), view[-_TEXT:]

    def add(self, text: str, times: int = 1) -> None:
        """Count a warning."""
        self._slots[os.getpid() % _SLOTS] += times
        if not self._text[0]:
            content = text.encode(errors="replace")[:_TEXT]
            self._text[: len(content)] = content

    @property
    def number(self) -> int:
        """How many there were."""
        return sum(self._slots)

    @property
    def first(self) -> str:
        """The first of them; of several processes, one of the first."""
        return bytes(self._text).rstrip(b"\0").decode(errors="ignore")


_current: WarningCount | None = None


def count_here(memory: Any) -> None:
    """Count into this memory for the rest of this process, a worker that is not forked."""
    _install(WarningCount(memory))


def take_in(memory: Any) -> None:
    """Add what workers counted into this memory to the count of the command."""
    found = WarningCount(memory)
    if _current is not None and found.number:
        _current.add(found.first, found.number)


@contextmanager
def counted() -> Iterator[None]:
    """Count Pillow's warnings in this process and its forks while this is entered, then say how many there were."""
    global _current
    before, shown, logs = _current, warnings.showwarning, logging.NullHandler()
    _current = WarningCount()
    entry = _install(_current)
    logging.getLogger("PIL").addHandler(logs)  # else Python would print what it logs
    try:
        yield
    finally:
        count, _current = _current, before
        warnings.showwarning = shown
        if entry in warnings.filters:
            warnings.filters.remove(entry)  # type: ignore[attr-defined]  # typeshed has it as a sequence
        logging.getLogger("PIL").removeHandler(logs)
        if count.number:
            logger.warning(
                "Pillow warned %d times of what it read, which was used unless it is listed as skipped; the first: %s",
                count.number,
                count.first,
            )


def _install(count: WarningCount) -> Any:
    """Count what Python would show of Pillow's warnings; returns the entry of Python's filters that lets it."""
    shown = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], filename: str, lineno: int, *more: Any) -> None:
        if _PILLOW in filename:
            count.add(" ".join(str(message).split()))
        else:
            shown(message, category, filename, lineno, *more)

    warnings.showwarning = show  # type: ignore[assignment]
    warnings.filterwarnings("always", category=UserWarning, module=r"PIL\.")
    return warnings.filters[0]
