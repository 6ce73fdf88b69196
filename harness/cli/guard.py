"""One place that turns what a user can fix into `error: <sentence>` on stderr and exit code 2."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from harness.cli.disk_errors import disk_sentence
from harness.errors import Terminated, UserError

USAGE = 2
# EX_TEMPFAIL of sysexits.h, try again later: the run was saved on SIGTERM or SIGHUP and goes on with --resume.
TERMINATED = 75
INTERRUPTED = 130  # 128 + SIGINT, as shells report it
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
        print(stopped, file=sys.stderr)
        leave(TERMINATED)
    except Exception as error:
        sentence = explain(error)
        if sentence is None:
            raise
        print(f"error: {sentence}", file=sys.stderr)
        leave(USAGE)


def explain(error: Exception) -> str | None:
    """The sentence for an error that a user can fix, None for a bug of ours."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, ModuleNotFoundError) and error.name and error.name.split(".")[0] not in OURS:
        package = error.name.split(".")[0]
        return f"the Python package {package} is missing; run: pip install '.[harness]' in a checkout of kdlosses"
    return disk_sentence(error)
