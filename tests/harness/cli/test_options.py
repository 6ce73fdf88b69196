"""Every argument and option that takes a path expands `~`."""

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from harness.cli import options
from harness.cli.app import app

PARSERS = (options.path, options.text)


def commands(group: typer.Typer) -> Iterator[Callable[..., Any]]:
    """The functions of all commands, with those of its groups."""
    yield from (command.callback for command in group.registered_commands if command.callback)
    for inner in group.registered_groups:
        yield from commands(inner.typer_instance)


PARAMETERS = [
    (f"{command.__name__} {parameter.name}", parameter.annotation)
    for command in commands(app)
    for parameter in inspect.signature(command).parameters.values()
]


def parser(hint: Any) -> Any:
    return next(one.parser for one in hint.__metadata__ if hasattr(one, "parser"))


def is_argument(hint: Any) -> bool:
    return any(type(one).__name__ == "ArgumentInfo" for one in hint.__metadata__)


def test_no_path_is_taken_as_it_is():
    paths = {name: parser(hint) for name, hint in PARAMETERS if "Path" in str(hint.__origin__)}
    assert len(paths) > 15 and {*paths.values()} == {options.path}


def test_arguments_are_paths_or_names():
    plain = [name for name, hint in PARAMETERS if is_argument(hint) and parser(hint) not in PARSERS]
    assert plain == []


def test_texts_that_may_be_paths():
    found = {name.rpartition(" ")[2] for name, hint in PARAMETERS if parser(hint) is options.text}
    assert found == {"recipe", "study", "source", "model", "models", "root", "suite", "pretrained", "teacher"}


@pytest.mark.parametrize(("written", "meant"), [("~/x", "/h/x"), (Path("~/x"), "/h/x"), ("a/./b", "a/b")])
def test_a_path(monkeypatch, written, meant):
    monkeypatch.setenv("HOME", "/h")
    assert options.path(written) == Path(meant)


def test_a_folder_that_begins_with_a_tilde_can_be_written(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert options.path("./~x/run") == tmp_path / "~x" / "run"
