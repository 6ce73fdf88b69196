"""What a run measures as it goes: means over an interval of steps, one JSON object a line in metrics.jsonl."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any, TextIO

import torch
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
    """Means of the losses since the last report, kept on the device so that no step waits for it.

    Args:
        batch_size: pairs in a step.
        skips_bad_steps: whether steps with a gradient that is not finite are skipped, as fp16's scaler does.
    """

    def __init__(self, batch_size: int, skips_bad_steps: bool = False) -> None:
        self._batch_size, self._skips_bad_steps = batch_size, skips_bad_steps
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
            UserError: when a loss or the gradient has become NaN or infinite, naming it.
        """
        total = len(self._sums)
        read = torch.stack([v.float() for v in [*self._sums.values(), *self._latest.values()]]).tolist()
        means = {name: value / self._count for name, value in zip(self._sums, read[:total], strict=True)}
        latest = dict(zip(self._latest, read[total:], strict=True))
        bad = [name for name, value in means.items() if not math.isfinite(value)]
        # The newest gradient has spoiled the weights already; an older one would show in the losses.
        if not self._skips_bad_steps and not math.isfinite(latest.get("grad_norm", 0.0)):
            bad.append("grad_norm")
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
            # JSON has no NaN; a gradient norm may be one where fp16's scaler skips the step.
            **{name: value if math.isfinite(value) else None for name, value in latest.items()},
        }
        self._since, self._sums, self._count = now, {}, 0
        return values
