"""Training metrics: means over the steps between two reports, one JSON object a line in metrics.jsonl."""

from __future__ import annotations

import errno
import json
import logging
import math
import os
import time
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor

from harness.files import named, vanished, write_text
from harness.records.lines import Lines, read_all, read_lines
from harness.records.reading import Schema
from harness.records.run_folder import MetricsLine

logger = logging.getLogger(__name__)


class MetricsWriter:
    """Append-only writer of ``metrics.jsonl``; every line is on its way to the disk before the next step.

    Args:
        path: the file.
        up_to: when a run is resumed, the step of its checkpoint: lines up to it stay, later ones are dropped, since
            those steps are taken again. None replaces the file.
    """

    def __init__(self, path: Path, up_to: int | None = None) -> None:
        self._path = path
        if up_to is None:
            write_text(path, "")
        else:
            keep_steps(path, up_to)
        self._file: TextIO = path.open("a", encoding="utf-8", buffering=1)

    def write(self, values: dict[str, Any]) -> None:
        """Write one line.

        Raises:
            UserError: see `check_in_place`.
        """
        self.check_in_place()
        with named(self._path):
            self._file.write(json.dumps(values) + "\n")

    def check_in_place(self) -> None:
        """Make sure that lines go where they are looked for: a file that was deleted takes them in silence.

        Raises:
            UserError: the file was deleted or replaced since it was opened.
        """
        try:
            if os.path.samestat(os.fstat(self._file.fileno()), self._path.stat()):
                return
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ESTALE):
                raise
        raise vanished(self._path)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The complete lines of a ``metrics.jsonl``; a last line cut short by a kill is left out.

    Raises:
        Unreadable: naming the lines that are damaged.
    """
    return read_all(path, MetricsLine, key=line_key)


def last_step(path: Path) -> int:
    """The step of the last line that can be read, 0 where there is none."""
    found = read_lines(path, MetricsLine)
    return int(found.good[-1].values["step"]) if found.good else 0


def line_key(line: dict[str, Any]) -> tuple[int, bool]:
    """What no two lines of a run share: each step is reported once, and evaluated once."""
    return line["step"], "eval" in line


def keep_steps(path: Path, up_to: int, schema: type[Schema] = MetricsLine) -> None:
    """Drop the lines of later steps from a JSONL file, and a last line cut short by a kill.

    Damaged lines are named in a warning, and moved into a file beside it.
    """
    found = read_lines(path, schema, key=line_key)
    if found.bad:
        _move_damaged(path, found)
    kept = [line.text for line in found.good if line.values["step"] <= up_to]
    write_text(path, b"".join(text + b"\n" for text in kept).decode())


def _move_damaged(path: Path, found: Lines) -> None:
    aside = path.with_name(f"{path.name}.damaged")
    with named(aside), aside.open("ab") as file:
        file.writelines(line.text + b"\n" for line in found.bad)
    logger.warning(
        "%s is damaged (%s): these lines are moved to %s; the run goes on from its checkpoint, which has all it needs",
        path,
        found.problem(),
        aside.name,
    )


class MetricAccumulator:
    """Running means of the losses since the last report, kept on the device so that no step waits for them.

    Args:
        batch_size: pairs in a step.
        seconds: how long the run has trained already, when it is resumed.
    """

    def __init__(self, batch_size: int, seconds: float = 0.0) -> None:
        self._batch_size = batch_size
        self._start = time.perf_counter() - seconds
        self._since, self._timed = time.perf_counter(), 0
        self._sums: dict[str, Tensor] = {}
        self._count: Tensor | None = None
        self._latest: dict[str, Tensor] = {}

    @property
    def seconds(self) -> float:
        """How long the run has trained."""
        return time.perf_counter() - self._start

    def exclude(self, seconds: float) -> None:
        """Leave time that just went by, such as an evaluation's, out of training time and speed."""
        self._start += seconds
        self._since += seconds

    def add(self, losses: dict[str, Tensor], report: dict[str, Tensor], ok: Tensor) -> None:
        """Take one step's values; where ``ok`` (0-d bool) is false, they are left out of the means."""
        for name, value in losses.items():
            counted = torch.where(ok, value, torch.zeros_like(value))
            self._sums[name] = self._sums[name] + counted if name in self._sums else counted
        self._count = ok.long() if self._count is None else self._count + ok
        self._latest = report
        self._timed += 1

    def flush(self, step: int, lr: float) -> dict[str, Any]:
        """The values to report, read from the device in one go; starts a new interval."""
        total = len(self._sums)
        assert self._count is not None, "no step since the last report"
        values = [*self._sums.values(), *self._latest.values(), self._count]
        *read, count = torch.stack([value.double() for value in values]).tolist()
        # No mean where every step was skipped.
        sums = dict(zip(self._sums, read[:total], strict=True))
        means = {name: value / count if count else None for name, value in sums.items()}
        latest = dict(zip(self._latest, read[total:], strict=True))
        now = time.perf_counter()
        line = {
            "step": step,
            "seconds": round(now - self._start, 3),
            "images_per_second": round(self._timed * self._batch_size / (now - self._since), 1),
            "lr": lr,
            "loss": sum(value / count for value in sums.values()) if count else None,
            **means,
            # JSON has no NaN; a gradient norm may be one where the step was skipped.
            **{name: value if math.isfinite(value) else None for name, value in latest.items()},
        }
        self._since, self._timed, self._sums, self._count = now, 0, {}, None
        return line

    def state_dict(self) -> dict[str, Any]:
        """The sums so far, for a checkpoint between two reports."""
        return {"sums": dict(self._sums), "count": self._count, "latest": dict(self._latest), "seconds": self.seconds}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Restore what `state_dict` gave."""
        self._start = time.perf_counter() - state["seconds"]
        self._sums = {name: value.to(device) for name, value in state["sums"].items()}
        self._latest = {name: value.to(device) for name, value in state["latest"].items()}
        self._count = None if state["count"] is None else state["count"].to(device)
