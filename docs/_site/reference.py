"""The pages that are read off the code: every command of clipkd with its options, and every key of a recipe."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

import typer.main

from harness.cli.app import app
from harness.config.keys import INHERITS, Key, all_keys, default_text

KEY_HEADER = ("key", "default", "meaning")


def command_reference() -> str:
    """Every command: its usage, what it does, its arguments and options."""
    return "\n\n".join(_commands("clipkd", typer.main.get_command(app)))


def recipe_key_reference() -> str:
    """Every key of a recipe, by section: its default and its meaning."""
    plain = [("`inherits`", "", INHERITS)]
    sections = []
    for name, keys in groupby(all_keys(), key=lambda key: re.split(r"\W", key.name)[0]):
        first, *members = keys
        if members:
            table = _table(KEY_HEADER, map(_key, members))
            sections.append(f"## {name}\n\n{first.field.description}\n\n{table}")
        else:
            plain.append(_key(first))
    return "\n\n".join(["## Without a section", _table(KEY_HEADER, plain), *sections])


def _key(key: Key) -> tuple[str, str, str]:
    default = default_text(key)
    return f"`{key.name}`", f"`{default}`" if default else "", key.field.description or ""


def _commands(name: str, command: Any) -> Iterator[str]:
    """A command's section, and those of its subcommands."""
    subcommands = getattr(command, "commands", {})
    context = command.context_class(command, info_name=name)
    usage = command.get_usage(context).removeprefix("Usage: ")
    parts = [f"## {name}", command.help or "", f"```\n{' '.join(usage.split())}\n```"]
    rows = [row for parameter in command.params if (row := _parameter(parameter, context))]
    if rows:
        parts.append(_table(("argument or option", "meaning"), rows))
    yield "\n\n".join(part.strip() for part in parts if part)
    for inner, subcommand in subcommands.items():
        yield from _commands(f"{name} {inner}", subcommand)


def _parameter(parameter: Any, context: Any) -> tuple[str, str] | None:
    """An argument's or option's row; None for one that help leaves out, or that each command has."""
    record = parameter.get_help_record(context)
    if record is None or parameter.name == "help":
        return None
    names, meaning = record
    return f"`{' '.join(names.split())}`", re.sub(r"\s*\[(?:required|default: .*)\]$", _default, meaning or "")


def _default(found: re.Match[str]) -> str:
    """The end of a help text as a sentence of its own."""
    return f" ({found[0].strip()[1:-1]})"


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table of Markdown."""
    lines = [list(header), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: str) -> str:
    """Text on one line, whose bars outside of code do not end the cell."""
    parts = re.split(r"(`[^`]*`)", " ".join(text.split()))
    return "".join(part if part.startswith("`") else part.replace("|", r"\|") for part in parts)
