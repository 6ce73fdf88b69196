"""Errors of the disk are one sentence with the path and what to do."""

import errno
import os

import pytest

from harness.cli.guard import explain

OF_THE_DISK = [
    "ENAMETOOLONG", "EFBIG", "EIO", "ESTALE", "EMFILE", "ENFILE", "ENOSPC", "EDQUOT", "EROFS", "EACCES", "EPERM",
    "EISDIR", "ENOTDIR", "ELOOP", "ETXTBSY", "EBUSY", "ENODEV", "ENXIO", "ENOENT", "EEXIST", "ENOTEMPTY", "EXDEV",
    "EINVAL",
]  # fmt: skip


@pytest.mark.parametrize("name", OF_THE_DISK)
def test_every_error_names_the_path_and_what_to_do(name):
    number = getattr(errno, name)
    sentence = explain(OSError(number, os.strerror(number), "runs/a"))
    assert "runs/a" in sentence and "\n" not in sentence
    assert any(word in sentence for word in (";", ", so "))


@pytest.mark.parametrize("name", ["EIO", "EMFILE", "ENFILE", "ESTALE", "EFBIG", "ENOSPC"])
def test_some_need_no_path(name):
    number = getattr(errno, name)
    assert explain(OSError(number, os.strerror(number))) is not None


def test_an_error_out_of_a_data_worker_keeps_its_number():
    text = "Caught OSError in DataLoader worker process 0.\nTraceback\nOSError: [Errno 5] Input/output error: '/a/b'"
    assert explain(OSError(text)).startswith("the disk failed at /a/b")


def test_an_error_out_of_safetensors_keeps_its_number():
    class SafetensorError(Exception):
        """As that library's."""

    error = SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    assert explain(error).startswith("no space left on the disk;")
    assert explain(SafetensorError("header too small")) is None


def test_a_path_that_a_library_cannot_take_is_named():
    with pytest.raises(UnicodeEncodeError) as caught:
        os.fsdecode(b"caf\xe9/a").encode()
    assert explain(caught.value).startswith("'caf\\udce9/a' has bytes that are not UTF-8; rename")


def test_a_path_that_is_not_utf8_is_a_path():
    assert os.fsdecode(b"caf\xe9") in explain(OSError(errno.EIO, "x", b"caf\xe9"))


@pytest.mark.parametrize("error", [OSError("ours"), FileNotFoundError(errno.ENOENT, "x"), OSError(errno.EPIPE, "x")])
def test_others_have_none(error):
    assert explain(error) is None
