"""Logging of the `clipkd` command: messages of the loggers `harness` and `kdlosses` as plain lines in the terminal.

Everything else in this package logs as any library does, through ``logging.getLogger(__name__)``, and configures
nothing: whoever imports harness decides what is shown. The command shows info on standard output and warnings, marked
as such, on standard error.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from harness import pillow_warnings

LOGGERS = ("harness", "kdlosses")


class ConsoleHandler(logging.Handler):
    """Writes a record as one line, warnings and errors with their level in front.

    The stream is looked up for each record: while a live progress bar runs, rich has put streams of its own in the
    place of both, which print above the bar.
    """

    def __init__(self, stream: Literal["stdout", "stderr"]) -> None:
        super().__init__()
        self.stream = stream

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; a stream that is closed or full ends the command, as it would end a `print`."""
        try:
            text = self.format(record)
        except Exception:
            self.handleError(record)
            return
        level = f"{record.levelname}: " if record.levelno >= logging.WARNING else ""
        stream = getattr(sys, self.stream)
        stream.write(f"{level}{text}\n")
        stream.flush()


# Two, as each has a lock: a terminal that takes no more output must not keep the watchdog from saying so.
_info, _warnings = ConsoleHandler("stdout"), ConsoleHandler("stderr")
_info.addFilter(lambda record: record.levelno < logging.WARNING)
_warnings.setLevel(logging.WARNING)


@contextmanager
def to_console() -> Iterator[None]:
    """Show messages while this is entered; of several processes, rank 0 shows all and the others only warnings.

    Pillow's warnings are shown as a count at the end.

    Meanwhile the root logger does not see them: libraries that call `logging.info` themselves, as open_clip does, give
    it a handler that would show each a second time.
    """
    loggers = [logging.getLogger(name) for name in LOGGERS]
    if _info in loggers[0].handlers:  # entered already, further out
        yield
        return
    before = [(logger, logger.level, logger.propagate) for logger in loggers]
    # torchrun's variable: the process group, which would say the same, does not exist yet.
    level = logging.INFO if os.environ.get("RANK", "0") == "0" else logging.WARNING
    for logger in loggers:
        logger.addHandler(_info)
        logger.addHandler(_warnings)
        logger.setLevel(level)
        logger.propagate = False
    try:
        with pillow_warnings.counted():
            yield
    finally:
        _info.stream = "stdout"
        for logger, level, propagate in before:
            logger.removeHandler(_info)
            logger.removeHandler(_warnings)
            logger.setLevel(level)
            logger.propagate = propagate


def keep_stdout_clean() -> None:
    """Show info on standard error too until the command ends: standard output is for its JSON."""
    _info.stream = "stderr"
