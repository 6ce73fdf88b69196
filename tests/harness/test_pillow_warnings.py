"""Pillow's warnings are counted over processes and said once; nobody else's are touched."""

from __future__ import annotations

import multiprocessing
import struct
import warnings
import zlib

import pytest
from typer.testing import CliRunner

from harness import pillow_warnings
from harness.cli.app import app
from harness.images import open_image
from harness.logs import to_console
from tests.harness.data.pairs import picture, write_tar


def odd(number: int = 0) -> bytes:
    """A PNG that says it is animated and has no frames; Pillow warns and reads it."""
    content = picture(number)
    chunk = b"acTL" + bytes(8)
    return content[:33] + struct.pack(">I", 8) + chunk + struct.pack(">I", zlib.crc32(chunk)) + content[33:]


def read_odd(times: int = 1) -> None:
    for _ in range(times):
        open_image(odd()).load()


def test_warnings_are_a_count_at_the_end(capsys):
    before = warnings.showwarning, list(warnings.filters)
    with to_console():
        read_odd(3)
        assert capsys.readouterr() == ("", "")
    told = capsys.readouterr()
    assert told.out == "" and told.err == (
        "WARNING: Pillow warned 3 times of what it read, which was used unless it is listed as skipped; the first: "
        "Invalid APNG, will use default PNG image if possible\n"
    )
    assert (warnings.showwarning, list(warnings.filters)) == before
    with to_console():
        open_image(picture(0)).load()
    assert capsys.readouterr() == ("", "")


def test_others_warn_as_ever():
    with pillow_warnings.counted(), pytest.warns(UserWarning, match="look"):
        warnings.warn("look", stacklevel=1)


def test_forks_count_into_the_same(caplog):
    with pillow_warnings.counted():
        workers = [multiprocessing.get_context("fork").Process(target=read_odd, args=(n,)) for n in (2, 3)]
        for worker in workers:
            worker.start()
        read_odd()
        for worker in workers:
            worker.join()
    assert caplog.messages[0].startswith("Pillow warned 6 times of what it read")


def test_what_workers_that_are_no_forks_counted_is_taken_in(caplog):
    memory = multiprocessing.RawArray("B", pillow_warnings.SIZE)
    with pillow_warnings.counted():
        pillow_warnings.take_in(memory)
        pillow_warnings.WarningCount(memory).add("an odd image", 4)
        pillow_warnings.take_in(memory)
    assert caplog.messages == [
        "Pillow warned 4 times of what it read, which was used unless it is listed as skipped; the first: an odd image"
    ]


def test_a_long_text_is_cut():
    count = pillow_warnings.WarningCount()
    count.add("ä" * 500)
    assert count.first == "ä" * 120 and count.number == 1


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_command_says_the_count(tmp_path, workers):
    write_tar(tmp_path / "0.tar", [(f"k{n}", {"png": odd(n), "txt": b"%d" % n}) for n in range(8)])
    result = CliRunner().invoke(app, ["data", "check", str(tmp_path), "--workers", str(workers)])
    assert result.exit_code == 0, result.output
    assert result.output.count("Pillow warned 8 times") == 1 and result.output.count("Invalid APNG") == 1
