"""Whose fault it is that a file cannot be read."""

import errno
import os

import pytest

from harness.data.regular_files import read_regular
from harness.data.samples import Unusable


def failing(number: int):
    def fail(*_arguments, **_keywords):
        raise OSError(number, os.strerror(number), "a.png")

    return fail


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_an_error_that_the_next_file_would_meet_ends_the_run(tmp_path, monkeypatch, number):
    (tmp_path / "a.png").write_bytes(b"x")
    monkeypatch.setattr("harness.data.regular_files.os.open", failing(number))
    with pytest.raises(OSError, match=r"a\.png"):
        read_regular(tmp_path / "a.png")


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EACCES])
def test_an_error_of_one_file_is_a_skipped_sample(tmp_path, monkeypatch, number):
    (tmp_path / "a.png").write_bytes(b"x")
    monkeypatch.setattr("harness.data.regular_files.os.open", failing(number))
    with pytest.raises(Unusable):
        read_regular(tmp_path / "a.png")
