"""Standard output and error, made to take whatever names of files hold."""

from __future__ import annotations

import io
import sys

from harness.bidi import escaped


def prepare_terminal() -> None:
    """Escape what an encoding lacks, such as bytes that are not UTF-8, and on terminals what turns text around."""
    for stream in (sys.stdout, sys.stderr):
        if not isinstance(stream, io.TextIOWrapper):  # a notebook's
            continue
        stream.reconfigure(errors="backslashreplace")
        if stream.isatty():
            _escape_controls(stream)


def _escape_controls(stream: io.TextIOWrapper) -> None:
    write = stream.write
    stream.write = lambda text: write(escaped(text))  # type: ignore[method-assign]  # print and rich ask the object
