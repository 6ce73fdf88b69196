"""Reading files that a kill, a full disk or a hand may have broken: what is whole is taken, the rest counted."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class JsonLines:
    """The JSON objects of a file and how many of its lines are none."""

    objects: list[dict[str, Any]] = field(default_factory=list)
    broken: int = 0


def read_json_lines(path: Path) -> JsonLines:
    """The objects of a JSONL file; none where there is no such file."""
    if not path.is_file():
        return JsonLines()
    objects, broken = [], 0
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            value = json.loads(line) if line.strip() else None
        except ValueError:
            value = ()
        if isinstance(value, dict):
            objects.append(value)
        elif value is not None:
            broken += 1
    return JsonLines(objects, broken)


def read_json_object(path: Path, problems: list[str]) -> dict[str, Any]:
    """The JSON object in a file; empty where there is none, said in ``problems`` where it is broken."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        problems.append(f"{path.name} cannot be read ({error}), so what it says is left out.")
        return {}
    if isinstance(value, dict):
        return value
    problems.append(f"{path.name} holds no JSON object, so what it says is left out.")
    return {}
