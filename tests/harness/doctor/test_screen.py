"""The screen: nothing is cut or too wide, and JSON holds the same."""

import io
import json
import socket
from pathlib import Path

import pytest
from rich.console import Console

from harness.doctor.finding import Finding, anonymous, describe_error
from harness.doctor.screen import as_json, show

FOUND = [
    Finding(
        "versions",
        "ok",
        "python 3.11.7 [bold]not markup[/bold] :smile:, " + ", ".join(f"package{n} 1.{n}" for n in range(9)),
    ),
    Finding("losses cuda:10", "skipped", "triton: there is no CUDA device"),
    Finding("disk", "fault", "no-space-in-this-" + "very" * 30 + "-long-word", "choose another --folder"),
]


@pytest.mark.parametrize("width", [80, 120])
def test_every_word_is_shown_within_the_width(width):
    file = io.StringIO()
    assert show(iter(FOUND), Console(file=file, width=width)) == FOUND
    text = file.getvalue()
    assert max(map(len, text.splitlines())) <= width
    together = "".join(text.split())
    for found in FOUND:
        assert found.level in together
        assert "".join(found.fix.split()) in together
    assert "[bold]notmarkup[/bold]:smile:," in together
    assert text.splitlines()[-1].rstrip() == "1 fault, 0 warnings; -> says what to do"


def test_nothing_to_do():
    file = io.StringIO()
    show([FOUND[0]], Console(file=file, width=80))
    assert file.getvalue().rstrip().endswith("nothing to do")


def test_json_holds_every_row():
    given = json.loads(as_json(FOUND))
    assert (given["faults"], given["warnings"]) == (1, 0)
    assert [Finding(**row) for row in given["findings"]] == FOUND


def test_errors_are_their_first_line_without_home_and_host(monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: Path("/home/someone"))
    monkeypatch.setattr(socket, "gethostname", lambda: "machine-7")
    error = RuntimeError("\n/home/someone/x on machine-7: refused\nframes")
    assert describe_error(error) == "RuntimeError: ~/x on HOST: refused"
    assert describe_error(ValueError()) == "ValueError"
    monkeypatch.setattr(socket, "gethostname", lambda: "vm")
    assert anonymous("lvm") == "lvm"
