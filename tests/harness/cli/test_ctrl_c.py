"""Ctrl-C ends a command at once while it imports, and raises KeyboardInterrupt in its work."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from harness.cli import ctrl_c


def stack(*modules: str) -> SimpleNamespace | None:
    """Frames as a signal handler gets them, the outermost module first; importlib's bear its file's name."""
    frame = None
    for module in modules:
        file = "<frozen importlib._bootstrap>" if module == "import" else "x.py"
        frame = SimpleNamespace(f_code=SimpleNamespace(co_filename=file), f_globals={"__name__": module}, f_back=frame)
    return frame


@pytest.mark.parametrize(
    ("modules", "at_once"),
    [
        (["__main__", "harness.cli.train", "import", "import", "torch", "import", "numpy"], True),
        (["__main__", "harness.cli", "typer.main", "import", "pydantic"], True),
        (["__main__", "harness.cli.train", "harness.train.trainer", "import", "numpy"], False),
        (["__main__", "harness.cli.train", "harness.train.trainer"], False),
        ([], False),
    ],
)
def test_only_imports_of_the_command_line_are_left_at_once(monkeypatch, capfd, modules, at_once):
    def leave(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setattr(ctrl_c.os, "_exit", leave)
    with pytest.raises(SystemExit if at_once else KeyboardInterrupt) as caught:
        ctrl_c._interrupt(2, stack(*modules))
    assert capfd.readouterr().err == ("interrupted\n" if at_once else "")
    assert not at_once or caught.value.code == 130
