"""What is printed may hold any name of a file."""

import io
import os
import sys

from harness.cli.terminal import prepare_terminal

NAME = os.fsdecode(b"caf\xe9") + " a\u202eb"


class Stream(io.TextIOWrapper):
    """A stream over bytes, which is a terminal or not."""

    def __init__(self, *, terminal: bool, encoding: str = "utf-8") -> None:
        super().__init__(io.BytesIO(), encoding=encoding, write_through=True)
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


def printed(monkeypatch, **how) -> bytes:
    stream = Stream(**how)
    monkeypatch.setattr(sys, "stdout", stream)
    prepare_terminal()
    print(NAME)
    return stream.buffer.getvalue()


def test_a_name_that_is_not_utf8_is_escaped(monkeypatch):
    assert printed(monkeypatch, terminal=False) == b"caf\\udce9 a\xe2\x80\xaeb\n"


def test_a_terminal_does_not_turn_text_around(monkeypatch):
    assert printed(monkeypatch, terminal=True) == b"caf\\udce9 a\\u202eb\n"


def test_an_encoding_that_lacks_a_character(monkeypatch):
    assert printed(monkeypatch, terminal=False, encoding="ascii") == b"caf\\udce9 a\\u202eb\n"
