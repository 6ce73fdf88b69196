"""What a run measures as it goes: means over an interval of steps, one JSON object a line in metrics.jsonl."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any, TextIO

from torch import Tensor

from harness.errors import UserError
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


class Interval:
    """Means of the losses since the last report, kept on the device so that no step waits for it."""

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self._start = self._since = time.perf_counter()
        self._sums: dict[str, Tensor] = {}
        self._latest: dict[str, Tensor] = {}
        self._count = 0

    def add(self, losses: dict[str, Tensor], report: dict[str, Tensor]) -> None:
        """Take one step's values."""
        for name, value in losses.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value.clone()
        self._latest = report
        self._count += 1

    def flush(self, step: int, lr: float) -> dict[str, Any]:
        """The values to report, read from the device in one go; starts a new interval.

        Raises:
            UserError: when a loss has become NaN or infinite, naming the term.
        """
        means = {name: float(value) / self._count for name, value in self._sums.items()}
        bad = [name for name, value in means.items() if not math.isfinite(value)]
        if bad:
            raise UserError(
                f"{', '.join(bad)} became NaN or infinite in steps {step - self._count + 1} to {step}; "
                "try a lower optim.lr, a longer schedule.warmup_steps, optim.grad_clip, or train.precision bf16 or fp32"
            )
        now = time.perf_counter()
        values = {
            "step": step,
            "seconds": round(now - self._start, 3),
            "images_per_second": round(self._count * self._batch_size / (now - self._since), 1),
            "lr": lr,
            "loss": sum(means.values()),
            **means,
            **{name: float(value) for name, value in self._latest.items()},
        }
        self._since, self._sums, self._count = now, {}, 0
        return values
