"""Targets of which each number has mean 0 and variance 1: the statistics of a teacher's first batches."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from kdlosses.rows import autocast_device
from kdlosses.state import TermState

_LEAST_VARIANCE = 1e-12  # a number that never changes becomes 0


class RunningStatistics(TermState):
    """Mean and variance of each number of a teacher's unit embeddings, over all rows of the first ``steps`` batches.

    Args:
        width: of the teacher's embeddings.
        sides: of which of "image" and "text".
        steps: training steps after which the statistics stay as they are.
    """

    follows = True
    count: Tensor
    seen_steps: Tensor

    def __init__(self, width: int, sides: tuple[str, ...], steps: int) -> None:
        super().__init__()
        self.sides, self.steps = sides, steps
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("seen_steps", torch.zeros((), dtype=torch.int64))
        for side in sides:
            self.register_buffer(f"{side}_mean", torch.zeros(width))
            self.register_buffer(f"{side}_squares", torch.zeros(width))

    @torch.no_grad()
    def standardized(self, side: str, rows: Tensor) -> Tensor:
        """Unit rows less their mean, over their standard deviation; as they are before the first batch was seen.

        Args:
            side: "image" or "text".
            rows: ``[B, width]``.
        """
        mean, squares = self._of(side)
        variance = torch.where(self.count > 0, squares / self.count.clamp_min(1), 1.0).clamp_min(_LEAST_VARIANCE)
        return (rows - mean.to(rows.dtype)) * variance.rsqrt().to(rows.dtype)

    @torch.no_grad()
    def update(self, teacher: Mapping[str, Tensor]) -> None:
        """See `TermState`."""
        going = self.seen_steps < self.steps
        # Written to in every step, with what is there once it is frozen: so no step waits for the device.
        with torch.autocast(autocast_device(self.count), enabled=False):
            total = self.count + teacher[self.sides[0]].shape[0]
            for side in self.sides:
                self._merge(side, teacher[side], total, going)
        self.count.copy_(torch.where(going, total, self.count))
        self.seen_steps.add_(going.to(torch.int64))

    def _merge(self, side: str, values: Tensor, total: Tensor, going: Tensor) -> None:
        """Take the batch's mean and squared deviations into those of the batches before."""
        mean, squares = self._of(side)
        rows = F.normalize(values.to(mean.dtype), dim=1)
        own = rows.mean(0)
        gap, share = own - mean, rows.shape[0] / total
        both = squares + (rows - own).square().sum(0) + gap.square() * (self.count * share)
        squares.copy_(torch.where(going, both, squares))
        mean.copy_(torch.where(going, mean + gap * share, mean))

    def _of(self, side: str) -> tuple[Tensor, Tensor]:
        return self.get_buffer(f"{side}_mean"), self.get_buffer(f"{side}_squares")
