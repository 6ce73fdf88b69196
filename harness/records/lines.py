"""Records of one line each, which are appended while a command runs and which a kill may cut short."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from harness.files import Unreadable, read_bytes
from harness.records.jsontext import parse_json
from harness.records.reading import Schema, explain, without_wrong

_SHOWN = 3


@dataclass(frozen=True)
class Line:
    """A line that fits its schema.

    Args:
        number: of the line, from 1.
        text: as it stands in the file.
        values: the object in it.
    """

    number: int
    text: bytes
    values: dict[str, Any]


@dataclass(frozen=True)
class BadLine:
    """A line that does not, and why."""

    number: int
    text: bytes
    reason: str


@dataclass(frozen=True)
class Lines:
    """The lines of a file.

    Args:
        good: those that fit.
        bad: the others.
        ignored: clauses on values that were left out of good lines.
    """

    good: list[Line] = field(default_factory=list)
    bad: list[BadLine] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)

    @property
    def values(self) -> list[dict[str, Any]]:
        """The objects of the lines that fit."""
        return [line.values for line in self.good]

    def problem(self) -> str:
        """What is wrong, by line, as a clause; empty where nothing is."""
        named = [f"line {line.number}: {line.reason}" for line in self.bad[:_SHOWN]]
        more = [f"and {len(self.bad) - _SHOWN} more lines"] if len(self.bad) > _SHOWN else []
        return "; ".join(named + more)


def read_lines(
    path: Path,
    schema: type[Schema],
    *,
    key: Callable[[dict[str, Any]], Hashable] | None = None,
    tolerant: bool = False,
) -> Lines:
    """Read a JSONL file; empty if there is none.

    Args:
        path: the file.
        schema: what every line holds.
        key: what no two lines share.
        tolerant: read files of other versions and tools: a value of another type is left out of its line, unless the
            line is nothing without it, and a last line need not be ended. Otherwise that line is left out without a
            word, as a kill cuts it short.

    Raises:
        Unreadable: the file cannot be read at all.
    """
    if not path.exists():
        return Lines()
    parts = read_bytes(path).split(b"\n")
    found = Lines()
    seen: dict[Hashable, int] = {}
    for number, text in enumerate(parts if tolerant else parts[:-1], 1):
        if not text.strip():
            continue
        try:
            values = _values(text, schema, found.ignored if tolerant else None, number)
            mark = number if key is None else key(values)
            if mark in seen:
                raise ValueError(f"it repeats line {seen[mark]}")
        except ValueError as error:
            found.bad.append(BadLine(number, text, str(error)))
        else:
            seen[mark] = number
            found.good.append(Line(number, text, values))
    return found


def read_all(path: Path, schema: type[Schema], **options: Any) -> list[dict[str, Any]]:
    """The objects of a JSONL file of which every line has to fit; see `read_lines`.

    Raises:
        Unreadable: naming the lines that do not, or the file is missing.
    """
    if not path.exists():
        raise Unreadable.file(path, "it is missing")
    found = read_lines(path, schema, **options)
    if found.bad:
        raise Unreadable.file(path, found.problem(), "restore the file, or delete these lines")
    return found.values


def _values(text: bytes, schema: type[Schema], ignored: list[str] | None, number: int) -> dict[str, Any]:
    value = parse_json(text)
    try:
        schema.model_validate(value)
    except ValidationError as error:
        if ignored is None or not isinstance(value, dict) or _is_vital(error, schema):
            raise ValueError(explain(error)) from error
        value, words = without_wrong(value, error)
        ignored += [f"line {number}: {word}" for word in words]
    return dict(value)


def _is_vital(error: ValidationError, schema: type[Schema]) -> bool:
    """Whether a key that every line has to have is wrong."""
    needed = {name for name, item in schema.model_fields.items() if item.is_required()}
    problems: Sequence[Any] = error.errors(include_url=False)
    return any(not problem["loc"] or problem["loc"][0] in needed for problem in problems)
