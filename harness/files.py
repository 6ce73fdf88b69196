"""Small files: written so that they are whole or absent, and read with one sentence where they are neither."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UserError
from harness.records.jsontext import parse_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WAY_ON = "restore the file or choose another folder"


class Unreadable(UserError):
    """A file is not what was written.

    Attributes:
        reason: what is wrong with it, as a clause.
    """

    reason: str = ""

    @classmethod
    def file(cls, path: Path, reason: str, way_on: str = WAY_ON) -> Unreadable:
        """The error for a file, and what to do about it."""
        error = cls(f"{path} cannot be read ({reason}); {way_on}")
        error.reason = reason
        return error


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Give the file's name to an OSError that has none: a full disk shows in a write, which knows no name."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise type(error)(error.errno, error.strerror, str(path)) from error
        raise


def vanished(path: Path) -> UserError:
    """The error for a file of a run folder that somebody else has deleted or replaced while the run went on."""
    return UserError(
        f"{path} was deleted or replaced while the run was writing into {path.parent}; start the run again, with "
        "another --out if something clears that folder"
    )


def make_folder(path: Path) -> None:
    """Make a folder that files can be written into: for long work, before it begins.

    Raises:
        OSError: it cannot be made, or nothing can be written there.
    """
    path.mkdir(parents=True, exist_ok=True)
    if not os.access(path, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))


def write_text(path: Path, text: str) -> None:
    """Write ``text`` under a temporary name, flush it to the disk, rename; bytes that are not UTF-8 are escaped."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    try:
        with named(path), temporary.open("w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON; see `write_text`."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path: Path, way_on: str = WAY_ON) -> Any:
    """The value in a JSON file, of whatever type; `harness.records` reads those of a known one.

    Raises:
        Unreadable: the file is missing or is not JSON.
    """
    try:
        return parse_json(read_bytes(path, way_on))
    except ValueError as error:
        raise Unreadable.file(path, str(error), way_on) from error


def read_bytes(path: Path, way_on: str = WAY_ON) -> bytes:
    """Content of a regular file: a pipe might never end.

    Raises:
        Unreadable: it is missing, cannot be read, or is not such a file.
    """
    try:
        if path.exists() and not path.is_file():
            raise Unreadable.file(path, "it is not a regular file", way_on)
        return path.read_bytes()
    except OSError as error:
        raise Unreadable.file(path, error.strerror or str(error), way_on) from error


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        figure.savefig(temporary, format="png")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def cut_half_line(path: Path) -> None:
    """Drop a line that a killed run left unfinished: the next one would be glued to it."""
    text = path.read_bytes() if path.exists() else b""
    whole = text.rfind(b"\n") + 1
    if whole < len(text):
        os.truncate(path, whole)
