"""Locks on folders that one command at a time may write into: the second one says who holds it.

The system frees a lock when its process ends, however it ends; data workers do not hold it, as filelock closes it in
forks.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from harness.errors import UserError
from harness.files import Unreadable
from harness.records.reading import Count, Schema, Text, read_record

logger = logging.getLogger(__name__)

# The lock file itself cannot be made; what is written next would fail as well.
_NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)


@contextmanager
def hold_lock(path: Path, folder: Path, held: str, way_out: str = "choose another --out") -> Iterator[None]:
    """Hold a lock file as long as the block runs; a file system without locks is one warning.

    Args:
        path: the lock file, in a folder that exists; it stays, for a file that is unlinked could be locked twice.
        folder: what it stands for, in messages.
        held: what another holder does, in the message, up to the folder's name: "another clipkd study is running in".
        way_out: what to do when waiting is no choice.

    Raises:
        UserError: another process holds it.
    """
    lock = _lock(path)
    try:
        lock.acquire()
    except Timeout:
        raise _refusal(path, folder, held, way_out) from None
    except OSError as error:
        if error.errno in _NOT_WRITABLE:
            raise
        logger.warning(
            "%s cannot be locked on its file system (%s); make sure that no second command writes there",
            folder,
            error.strerror,
        )
    try:
        _sign(path)
        yield
    finally:
        lock.release()


def refuse_held(path: Path, folder: Path, held: str, way_out: str) -> None:
    """Raise `hold_lock`'s UserError where another process holds this lock file, and leave it free otherwise."""
    lock = _lock(path)
    try:
        lock.acquire()
    except Timeout:
        raise _refusal(path, folder, held, way_out) from None
    except OSError:  # whoever would hold it has been warned
        return
    lock.release()


def _lock(path: Path) -> FileLock:
    # A soft lock would be left behind by a process that is killed.
    return FileLock(path, timeout=0, fallback_to_soft=False)


def _refusal(path: Path, folder: Path, held: str, way_out: str) -> UserError:
    return UserError(f"{held} {folder} ({_holder(path)}); wait for it to finish, end it, or {way_out}")


def _sign(path: Path) -> None:
    since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    path.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since}), encoding="utf-8")


class _Holder(Schema):
    """What a lock file says, of who holds it."""

    pid: Count
    host: Text
    since: Text


def _holder(path: Path) -> str:
    try:
        signed = read_record(path, _Holder)
    except Unreadable:  # it has locked the file and not signed it yet
        return "it has just started"
    return f"process {signed.pid} on {signed.host}, since {signed.since}"
