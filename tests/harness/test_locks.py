"""Locks on folders: who holds one is said, and a process that was killed holds none."""

from __future__ import annotations

import errno
import fcntl
import json
import multiprocessing
import os
import re
import socket
import time
from pathlib import Path

import pytest

from harness.errors import UserError
from harness.locks import hold_lock, refuse_held
from tests.harness.data.forked import start, until_gone

HELD = "another training is running in"


def holder(connection, folder: Path) -> None:
    """Hold the lock, with a worker that does not look for its parent; then wait to be killed."""
    with hold_lock(folder / "lock", folder, HELD):
        worker = multiprocessing.Process(target=time.sleep, args=(300,))
        worker.start()
        connection.send(worker.pid)
        time.sleep(300)


def test_a_killed_process_holds_no_lock_though_its_workers_live(tmp_path):
    process, connection = start(holder, tmp_path)
    assert connection.poll(300)
    worker = connection.recv()
    signed = (tmp_path / "lock").read_bytes()
    who = (
        rf"\(process {process.pid} on {re.escape(socket.gethostname())}, since 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d[+-].*\)"
    )
    sentence = rf"^{HELD} {re.escape(str(tmp_path))} {who}; wait for it to finish, end it, or choose another --out$"
    with pytest.raises(UserError, match=sentence), hold_lock(tmp_path / "lock", tmp_path, HELD):
        pytest.fail("it is held")
    assert (tmp_path / "lock").read_bytes() == signed
    process.kill()
    process.join()
    try:
        with hold_lock(tmp_path / "lock", tmp_path, HELD):
            os.kill(worker, 0)  # it lives
    finally:
        os.kill(worker, 9)
        until_gone({worker})


def test_a_lock_is_held_once_even_within_a_process_and_free_afterwards(tmp_path):
    path = tmp_path / "lock"
    with hold_lock(path, tmp_path, HELD):
        assert json.loads(path.read_text())["pid"] == os.getpid()
        with pytest.raises(UserError, match=f"process {os.getpid()} on"):
            refuse_held(path, tmp_path, HELD, "go away")
        with pytest.raises(UserError, match=r"or go away$"), hold_lock(path, tmp_path, HELD, "go away"):
            pytest.fail("it is held")
    with pytest.raises(ZeroDivisionError), hold_lock(path, tmp_path, HELD):
        raise ZeroDivisionError
    refuse_held(path, tmp_path, HELD, "go away")
    with hold_lock(path, tmp_path, HELD):
        pass


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff"])
def test_a_holder_that_has_not_signed_yet_is_no_failure(tmp_path, content):
    with hold_lock(tmp_path / "lock", tmp_path, HELD):
        (tmp_path / "lock").write_bytes(content)
        with pytest.raises(UserError, match=r"\(it has just started\); wait"):
            refuse_held(tmp_path / "lock", tmp_path, HELD, "go away")


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_one_warning(tmp_path, monkeypatch, caplog, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    for _ in range(2):  # no mark is left that would keep the second one out
        caplog.clear()
        with hold_lock(tmp_path / "lock", tmp_path, HELD):
            refuse_held(tmp_path / "lock", tmp_path, HELD, "go away")
        (record,) = caplog.records
        assert record.levelname == "WARNING" and record.name == "harness.locks"
        assert f"{tmp_path} cannot be locked on its file system ({os.strerror(number)})" in record.getMessage()
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_a_folder_that_cannot_be_written_is_an_error_and_not_a_warning(tmp_path, monkeypatch, caplog):
    def refuse(*_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OSError, match="Read-only file system"), hold_lock(tmp_path / "lock", tmp_path, HELD):
        pytest.fail("it was not locked")
    assert not caplog.records
