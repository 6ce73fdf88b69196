"""One place that turns what a user can fix into `error: <sentence>` on stderr and exit code 2."""

import errno
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

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
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no space left on the disk{_file(error)}; free some space and run the same command again"
    if isinstance(error, PermissionError) or (isinstance(error, OSError) and error.errno == errno.EROFS):
        return f"no permission to read or write{_file(error)}; choose another folder or change its permissions"
    if isinstance(error, FileExistsError | NotADirectoryError | IsADirectoryError) and error.filename:
        return f"{_in_the_way(error)}; choose another folder or move it away"
    if isinstance(error, ModuleNotFoundError) and error.name and error.name.split(".")[0] not in OURS:
        package = error.name.split(".")[0]
        return f"the Python package {package} is missing; run: pip install '.[harness]' in a checkout of kdlosses"
    return None


def _in_the_way(error: OSError) -> str:
    # A rename names its target second, and the target is what it stumbled over.
    path = Path(str(error.filename2 or error.filename))
    if isinstance(error, IsADirectoryError):
        return f"{path} is a folder where a file is needed"
    file = next((part for part in (path, *path.parents) if part.is_file()), None)
    return f"{file} is a file where a folder is needed" if file else f"{path} is in the way"


def _file(error: OSError) -> str:
    return f" for {error.filename}" if error.filename else ""
