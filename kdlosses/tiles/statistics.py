"""The running softmax of rows (or columns) met tile by tile, and the answers it gives.

For each row: the largest logit ``m``, and ``s``, the sum of ``exp(z - m)`` over all columns but the positive's. Leaving
the positive out keeps the digits of a confident row, where 1 - p is far below the spacing of numbers near 1. With a
teacher also its ``m_t``, ``s_t`` and ``a``, the sum of ``exp(z_t - m_t) ((z_t - m_t) - (z_s - m_s))``: differences of
shifted logits are small where the teacher puts its weight. Where the teacher's entropy is asked for, also ``h``, the
sum of ``exp(z_t - m_t) (z_t - m_t)``. Statistics are stacked as ``[2, N]`` (m, s), ``[5, N]`` (m, s, m_t, s_t, a) or
``[6, N]`` (m, s, m_t, s_t, a, h).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Statistics(NamedTuple):
    """What one job's passes leave behind: stacks for the directions asked for, and the positives' logits.

    Args:
        rows: ``[2, 5 or 6, N]`` or None.
        cols: ``[2, 5 or 6, M]`` or None.
        positives: ``[1 or 2, N]``, the student's and, with a teacher, the teacher's.
    """

    rows: Tensor | None
    cols: Tensor | None
    positives: Tensor

    def direction(self, cols: bool) -> Direction:
        """The rows' or the columns' statistics, readable by name."""
        stack = self.cols if cols else self.rows
        assert stack is not None, "this direction was not asked for"
        return Direction(stack, self.positives)


def merge(parts: Tensor) -> Tensor:
    """Statistics of the union of disjoint sets of columns: ``[K, 2, 5 or 6, N]`` to ``[2, 5 or 6, N]``."""
    # Each part is relative to its own maximum. Moving to the largest multiplies by exp of at most 0: no overflow.
    m = parts[:, 0].amax(0)
    shrink = (parts[:, 0] - m).exp_()
    merged = [m, (parts[:, 1] * shrink).sum(0)]
    if parts.shape[1] > 2:
        m_t = parts[:, 2].amax(0)
        shift_t = parts[:, 2] - m_t
        # The moment is a sum of differences of shifted logits, so both maxima's moves change it.
        shift = shift_t - (parts[:, 0] - m)
        shrink_t = shift_t.exp()
        moment = (parts[:, 4] + parts[:, 3] * shift) * shrink_t
        merged += [m_t, (parts[:, 3] * shrink_t).sum(0), moment.sum(0)]
        if parts.shape[1] == 6:
            merged.append(((parts[:, 5] + parts[:, 3] * shift_t) * shrink_t).sum(0))
    return torch.stack(merged)


class Direction:
    """Named views of one direction's statistics and the softmax quantities that follow from them.

    Attributes:
        m, s, positive: ``[N]``, of the student.
        total: ``[N]``, the whole sum, the positive's share included.
        m_t, s_t, total_t, positive_t: ``[N]``, of the teacher, where there is one.
    """

    def __init__(self, stack: Tensor, positives: Tensor) -> None:
        self.m, self.s = stack[0], stack[1]
        self.positive = positives[0] - self.m
        self.total = self.s + self.positive.exp()
        if len(stack) > 2:
            self.m_t, self.s_t, self.a = stack[2], stack[3], stack[4]
            self.positive_t = positives[1] - self.m_t
            self.total_t = self.s_t + self.positive_t.exp()
            if len(stack) == 6:
                self.h = stack[5]

    def cross_entropy(self) -> Tensor:
        """``[N]``: minus log-softmax at the positive; exact also where it is far below the spacing near 1."""
        # The odds against the positive, as a logarithm: where p rounds to 1 they still have all their digits.
        margin = self.s.log() - self.positive
        return torch.logaddexp(margin, torch.zeros_like(margin))

    def kl(self) -> Tensor:
        """``[N]``: KL(teacher || student)."""
        mean = self.log_ratio_mean()
        # log1p, as where both are certain of the positive the totals round to 1 and s alone has what is left.
        log_total, log_total_t = (torch.log1p(s + p.expm1()) for s, p in self._sums())
        return mean - log_total_t + log_total

    def log_ratio_mean(self) -> Tensor:
        """``[N]``: the teacher's mean of ``(z_t - m_t) - (z - m)``."""
        moment = self.a + self.positive_t.exp() * (self.positive_t - self.positive)
        return moment / self.total_t

    def entropy_t(self) -> Tensor:
        """``[N]``: the teacher's entropy."""
        moment = self.h + self.positive_t.exp() * self.positive_t
        # Both parts are at least 0, so that the small entropy of a confident row keeps its digits too.
        return torch.log1p(self.s_t + self.positive_t.expm1()) - moment / self.total_t

    def _sums(self) -> list[tuple[Tensor, Tensor]]:
        return [(self.s, self.positive), (self.s_t, self.positive_t)]

    def doubt(self) -> Tensor:
        """``[N]``: 1 - p at the positive, without the cancellation."""
        return self.s / self.total

    def excess(self) -> Tensor:
        """``[N]``: p - p_t at the positive, from whichever of p and 1 - p has more digits."""
        p, p_t = self.positive.exp() / self.total, self.positive_t.exp() / self.total_t
        return torch.where(p + p_t > 1, self.s_t / self.total_t - self.doubt(), p - p_t)
