"""Ctrl-C without a traceback where no except clause is around: before, between and after those of the command."""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

INTERRUPTED = 130  # 128 + SIGINT, as shells report it
# Seconds until an interrupt comes again that arrived where Python cannot raise it, as in a destructor.
_AGAIN = 0.05


def quiet_interrupts() -> None:
    """Let Ctrl-C end this process, which is the command's own, without a traceback wherever it arrives."""
    if sys.excepthook is _excepthook:
        return
    global _before, _before_unraisable
    _before, _before_unraisable = sys.excepthook, sys.unraisablehook
    sys.excepthook, sys.unraisablehook = _excepthook, _unraisablehook
    # Where it is ignored, as in the background, it stays so.
    is_main = threading.current_thread() is threading.main_thread()
    if is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)


_before, _before_unraisable = sys.excepthook, sys.unraisablehook


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Leave at once while the command still imports what it needs, and raise KeyboardInterrupt later.

    Extension modules swallow it, or make another error of it; and nothing has been begun that had to be ended.
    """
    if _is_import_of_command(frame):
        os.write(2, b"interrupted\n")
        os._exit(INTERRUPTED)
    signal.default_int_handler(number, frame)


def _is_import_of_command(frame: FrameType | None) -> bool:
    """Whether the outermost import on the stack is a statement of the command line's own modules, or of typer's."""
    importer = None
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            importer = frame.f_back
        frame = frame.f_back
    return importer is not None and importer.f_globals.get("__name__", "").startswith(("harness.cli", "typer"))


def _excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
    else:
        _before(kind, error, trace)


def _unraisablehook(unraisable: UnraisableHookArgs) -> None:
    if not issubclass(unraisable.exc_type, KeyboardInterrupt):
        _before_unraisable(unraisable)
    elif sys._getframe().f_back is None:
        # The interpreter is shutting down, and nothing is left to be done.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    else:
        again = threading.Timer(_AGAIN, _thread.interrupt_main)
        again.daemon = True
        again.start()
