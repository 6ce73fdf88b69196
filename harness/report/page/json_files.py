"""Tolerant readers of JSON files that a kill or a full disk may have truncated."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class JsonLines:
    """JSON objects of a file, and the number of lines that are not."""

    objects: list[dict[str, Any]] = field(default_factory=list)
    broken: int = 0


def read_json_lines(path: Path) -> JsonLines:
    """Read the objects of a JSONL file; empty if there is no such file."""
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
    """Read the JSON object in a file; empty if there is none; an unreadable file is added to ``problems``."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        problems.append(f"{path.name} cannot be read ({error}) and is ignored.")
        return {}
    if isinstance(value, dict):
        return value
    problems.append(f"{path.name} does not hold a JSON object and is ignored.")
    return {}
