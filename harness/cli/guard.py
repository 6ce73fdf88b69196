"""One place that turns what a user can fix into `error: <sentence>` on stderr and exit code 2."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from harness.cli.ctrl_c import INTERRUPTED
from harness.cli.disk_errors import disk_sentence
from harness.errors import Terminated, UserError
from harness.out_of_memory import memory_shortage

USAGE = 2
# EX_TEMPFAIL of sysexits.h, try again later: the run was saved on SIGTERM or SIGHUP and goes on with --resume.
TERMINATED = 75
# Seconds that a rank has to shut down in.
_SHUTDOWN = 8.0
OURS = ("harness", "kdlosses")


@contextmanager
def explained(leave: Callable[[int], NoReturn]) -> Iterator[None]:
    """Print the sentence for an error that has one and `leave` with its exit code; any other error passes through."""
    try:
        yield
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        leave(INTERRUPTED)
    except Terminated as stopped:
        _keep_exit_code(TERMINATED)
        print(stopped, file=sys.stderr)
        leave(TERMINATED)
    except Exception as error:
        if _was_interrupted(error):
            print("interrupted", file=sys.stderr)
            leave(INTERRUPTED)
        sentence = explain(error)
        if sentence is None:
            raise
        _keep_exit_code(USAGE)
        print(f"error: {sentence}", file=sys.stderr)
        leave(USAGE)


def _was_interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C is behind an error: extension modules make an ImportError of one that comes while they load."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False


def _keep_exit_code(code: int) -> None:
    """Let a rank of torchrun leave with this code, whatever its shutdown meets."""
    if "TORCHELASTIC_RUN_ID" not in os.environ or threading.current_thread() is not threading.main_thread():
        return
    # Once one rank has ended torchrun sends these to the others, which would end by them instead.
    for stop in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(stop, signal.SIG_IGN)
    # A kernel that waits for another rank keeps CUDA from shutting down.
    late = threading.Timer(_SHUTDOWN, os._exit, [code])
    late.daemon = True
    late.start()


def explain(error: Exception) -> str | None:
    """The sentence for an error that a user can fix, None for a bug of ours."""
    if isinstance(error, UserError):
        return str(error)
    shortage = memory_shortage(error)
    if shortage is not None:
        return f"out of memory: {shortage}; use a smaller batch size, fewer worker processes, or a smaller model"
    if isinstance(error, ModuleNotFoundError) and error.name and error.name.split(".")[0] not in OURS:
        package = error.name.split(".")[0]
        return f"the Python package {package} is missing; run: pip install '.[harness]' in a checkout of kdlosses"
    return disk_sentence(error)
