"""metrics.jsonl: one JSON object a line, written as it is measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TextIO

from harness.files import named


class MetricsWriter:
    """Append-only writer of ``metrics.jsonl``; every line is on its way to the disk before the next step.

    Args:
        path: the file; an earlier one is replaced.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: TextIO = path.open("w", encoding="utf-8", buffering=1)

    def write(self, values: dict[str, Any]) -> None:
        """Write one line."""
        with named(self._path):
            self._file.write(json.dumps(values) + "\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The complete lines of a ``metrics.jsonl``; a last line cut short by a kill is left out."""
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1] if line]
