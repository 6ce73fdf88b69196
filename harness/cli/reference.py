"""Markdown reference of the commands and of the recipe keys, made from the commands and the schema themselves."""

import inspect
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any

import typer
from typer.models import ArgumentInfo, OptionInfo

_TYPES = {str: "TEXT", int: "INT", float: "FLOAT", Path: "PATH"}


def command_reference() -> str:
    """Markdown page of every `clipkd` command: usage, description, arguments and options."""
    from harness.cli.app import app

    return "# Command line\n\n" + "\n\n".join(_group("clipkd", app)) + "\n"


def recipe_key_reference() -> str:
    """Markdown page of every recipe key: a table for each section, with default and meaning."""
    from harness.config.keys import INHERITS, all_keys, default_text

    tables: dict[str, list[str]] = {"": [_row("inherits", "", INHERITS)]}
    for key in all_keys():
        section, _, leaf = key.name.rpartition(".")
        tables.setdefault(section, []).append(_row(leaf, default_text(key), key.field.description or ""))
    parts = [
        f"## {f'`{section}`' if section else 'Top level'}\n\n" + _table("key", rows) for section, rows in tables.items()
    ]
    return "# Recipe keys\n\n" + "\n\n".join(parts) + "\n"


@dataclass(frozen=True)
class Parameter:
    """One argument or option of a command, as its function declares it."""

    name: str
    info: ArgumentInfo | OptionInfo
    type: Any
    default: Any

    @property
    def is_flag(self) -> bool:
        """Whether it takes no value."""
        return self.type is bool

    @property
    def default_text(self) -> str:
        """The default as it would be typed; empty where the help tells it, `required` where there is none."""
        if self.default is inspect.Parameter.empty:
            return "required"
        if self.is_flag or self.default is None or self.info.show_default is False:
            return ""
        return str(self.default)

    @property
    def usage(self) -> str:
        """How it is typed: the option's names and value, or the argument's place."""
        if isinstance(self.info, ArgumentInfo):
            several = "..." if typing.get_origin(self.type) is list else ""
            value = self.info.metavar or f"{self.name.upper()}{several}"
            return value if self.default is inspect.Parameter.empty else f"[{value}]"
        # Within Annotated, typer keeps the first name where a default would stand.
        declared = [one for one in (self.info.default, *(self.info.param_decls or ())) if isinstance(one, str)]
        names = [name.strip(" /") for name in declared or [f"--{self.name.replace('_', '-')}"]]
        return ", ".join(names) + ("" if self.is_flag else f" {self.info.metavar or _type_name(self.type)}")


def _group(path: str, app: typer.Typer) -> Iterator[str]:
    root = app.registered_callback
    if root is not None and root.callback is not None:
        yield _section(path, root.callback, [f"{path} COMMAND"])
    for command in app.registered_commands:
        assert command.callback is not None
        name = command.name or command.callback.__name__.replace("_", "-")
        yield _section(f"{path} {name}", command.callback, [f"{path} {name}"])
    for group in app.registered_groups:
        if group.typer_instance is not None:
            yield from _group(f"{path} {group.name}", group.typer_instance)


def _section(path: str, function: Callable[..., Any], usage: list[str]) -> str:
    parameters = list(_parameters(function))
    arguments = [one for one in parameters if isinstance(one.info, ArgumentInfo)]
    options = [one for one in parameters if isinstance(one.info, OptionInfo)]
    usage += [one.usage for one in arguments] + (["[OPTIONS]"] if options else [])
    parts = [f"## {path}", inspect.getdoc(function) or "", f"```\n{' '.join(usage)}\n```"]
    for title, members in (("argument", arguments), ("option", options)):
        if members:
            rows = [_row(one.usage, one.default_text, one.info.help or "") for one in members]
            parts.append(_table(title, rows))
    return "\n\n".join(parts)


def _parameters(function: Callable[..., Any]) -> Iterator[Parameter]:
    hints = typing.get_type_hints(function, include_extras=True)
    for name, declared in inspect.signature(function).parameters.items():
        kind, *metadata = typing.get_args(hints[name])
        info = next(one for one in metadata if isinstance(one, ArgumentInfo | OptionInfo))
        yield Parameter(name, info, kind, declared.default)


def _type_name(kind: Any) -> str:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, UnionType):
        return _type_name(next(one for one in inner if one is not NoneType))
    if origin is list:
        return _type_name(inner[0])
    if origin is typing.Literal:
        return "|".join(inner)
    return _TYPES[kind]


def _table(title: str, rows: list[str]) -> str:
    return "\n".join([f"| {title} | default | meaning |", "| --- | --- | --- |", *rows])


def _row(name: str, default: str, meaning: str) -> str:
    return f"| `{_cell(name)}` | {f'`{_cell(default)}`' if default else ''} | {_cell(meaning)} |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
