"""Files that rows of a list name, and shards: a pipe or a device may never end, so only regular files are read."""

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

from harness.data.samples import Unusable

MAX_BYTES = 2**30
_OF_THE_SYSTEM = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_KINDS = ((stat.S_ISFIFO, "a named pipe"), (stat.S_ISSOCK, "a socket"), (stat.S_ISDIR, "a folder"))
# Where there is such a flag, opening or reading never waits for anybody.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


def check_regular(path: Path) -> None:
    """Refuse what is not a regular file, or larger than any image.

    Raises:
        Unusable: it is not there, is of another kind, or has more than `MAX_BYTES`.
    """
    try:
        found = path.stat()
    except OSError as error:
        _raise_if_the_systems(error)
        raise Unusable("missing_image", f"{path}: {error.strerror}") from None
    except ValueError as error:  # a path with a zero byte in it
        raise Unusable("missing_image", f"{str(path)!r}: {error}") from None
    if not stat.S_ISREG(found.st_mode):
        raise Unusable("missing_image", f"{path}: {_irregular(found.st_mode)}")
    if found.st_size > MAX_BYTES:
        raise _too_large(path, found.st_size)


def read_regular(path: Path) -> bytes:
    """Return a regular file's content.

    Raises:
        Unusable: as `check_regular`, or it cannot be read.
        OSError: too many files are open, or memory ran out: the fault of no single file.
    """
    check_regular(path)
    try:
        with open(os.open(path, _FLAGS), "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        _raise_if_the_systems(error)
        raise Unusable("missing_image", f"{path}: {error.strerror}") from None
    if len(content or b"") > MAX_BYTES:  # one of /proc has no size
        raise _too_large(path, len(content))
    return content or b""


def open_regular(path: Path, buffering: int = -1) -> BufferedReader:
    """Open a regular file of any size.

    Raises:
        OSError: it is not there, cannot be read, or is of another kind.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError(_irregular(found.st_mode))
    return open(os.open(path, _FLAGS), "rb", buffering)  # type: ignore[return-value]  # buffered


def _irregular(mode: int) -> str:
    kind = next((words for test, words in _KINDS if test(mode)), "a device")
    return f"{kind}, and only regular files are read"


def _raise_if_the_systems(error: OSError) -> None:
    """Raise an error that the next file would meet as well."""
    if error.errno in _OF_THE_SYSTEM:
        raise error


def _too_large(path: Path, size: int) -> Unusable:
    return Unusable("corrupt_image", f"{path}: {size:,} bytes or more, above {MAX_BYTES:,}; no image is that large")
