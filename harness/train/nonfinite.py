"""Non-finite losses and gradients: noticed on the device, reported without making any step wait."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from harness.errors import UserError
from harness.files import named
from harness.way_on import way_on

_WAYS_OUT = "try a lower optim.lr, a longer schedule.warmup_steps, optim.grad_clip, or train.precision bf16 or fp32"


@dataclass
class _Step:
    """One step whose values are still on the device."""

    number: int
    ok: Tensor
    values: dict[str, Tensor]
    keys: list[str]


class NonFiniteMonitor:
    """Keeps the verdicts of the steps since the last flush, and which samples were in them.

    A step that is not ok has not touched the weights: the caller skips its update on the device.

    Args:
        path: the ``nonfinite.jsonl`` that such steps are appended to: step, values, keys of the samples.
        policy: ``"stop"`` ends the run at the first one, ``"skip"`` goes on until more than ``limit`` of them.
        limit: for ``"skip"``, how many a run may have.
        count: how many it has had already, when it is resumed.
    """

    def __init__(self, path: Path, policy: Literal["stop", "skip"], limit: int, count: int = 0) -> None:
        self.path, self._policy, self._limit = path, policy, limit
        self._steps: list[_Step] = []
        self.count = count

    def add(self, number: int, ok: Tensor, values: dict[str, Tensor], keys: list[str]) -> None:
        """Take one step's verdict (0-d bool) and values (0-d), all on the device and unread."""
        self._steps.append(_Step(number, ok, values, keys))

    def flush(self) -> None:
        """Read the verdicts in one transfer, record the steps that were not finite, and apply the policy.

        Raises:
            UserError: the policy ends the run, naming what became non-finite, in which step, and where it is listed.
        """
        steps, self._steps = self._steps, []
        if not steps:
            return
        verdicts = torch.stack([step.ok for step in steps]).tolist()
        bad = [step for step, ok in zip(steps, verdicts, strict=True) if not ok]
        for step in bad:
            self._record(step)

    def _record(self, step: _Step) -> None:
        values = {name: value.item() for name, value in step.values.items()}
        wrong = [name for name, value in values.items() if not math.isfinite(value)]
        # JSON has no NaN.
        shown = {name: value if math.isfinite(value) else str(value) for name, value in values.items()}
        with named(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step.number, "values": shown, "keys": step.keys}) + "\n")
        self.count += 1
        where = f"{', '.join(wrong)} became NaN or infinite in step {step.number}, whose samples are in {self.path}"
        if self._policy == "stop":
            raise UserError(
                f"{where}; the weights were not touched; to go on without such steps {way_on().skip_nonfinite}, or "
                f"{way_on().restart}: {_WAYS_OUT}"
            )
        if self.count > self._limit:
            raise UserError(
                f"{where}; {self.count} such steps are more than train.max_nonfinite; {way_on().restart}: {_WAYS_OUT}"
            )


def is_finite_step(losses: dict[str, Tensor], gradient_norm: Tensor, scaler: torch.amp.GradScaler) -> Tensor:
    """Whether a step's losses and gradient are finite, 0-d bool on their device; call it before the scaler's update."""
    finite = torch.stack(list(losses.values())).isfinite().all()
    if not scaler.is_enabled():
        return finite & gradient_norm.isfinite()
    # The scaler skips infinite gradients by itself, as it should at first; at a scale of 1 they have another cause.
    scale = scaler._scale
    assert scale is not None, "called before the first scaled backward pass"
    return finite & (gradient_norm.isfinite() | (scale > 1))
