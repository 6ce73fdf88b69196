"""The closed-form derivative of every softmax answer with respect to the logits, as vectors a tile is made from.

The derivative of a job's answers is a matrix ``W``: away from the positives the sum over both directions of
``w exp(z - m) - w_t exp(z_t - m_t)``, its vectors read along rows or along columns, and ``diagonal`` at the positives.
For the student's KL from the teacher it is ``w exp(z - m) ((z - m) - (z_t - m_t) - mean)`` instead.
A backend makes a tile of it, multiplies it with the keys and its transpose with the queries, and is done.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from kdlosses.tiles.statistics import Statistics


class Softened(NamedTuple):
    """One direction's part of ``W``: vectors ``[N]``, the teacher's None where there is none."""

    m: Tensor
    w: Tensor
    m_t: Tensor | None = None
    w_t: Tensor | None = None
    mean: Tensor | None = None

    def block(self, entries: slice) -> Softened:
        """These entries of each vector."""
        m_t = None if self.m_t is None else self.m_t[entries]
        w_t = None if self.w_t is None else self.w_t[entries]
        mean = None if self.mean is None else self.mean[entries]
        return Softened(self.m[entries], self.w[entries], m_t, w_t, mean)


class Coefficients(NamedTuple):
    """All of ``W``: the rows' part, the columns' part, and its values at the positives ``[N]``."""

    rows: Softened | None
    cols: Softened | None
    diagonal: Tensor

    def directions(self) -> list[tuple[Softened, int]]:
        """The parts that are there, each with the dimension of a tile that its softmax sums over."""
        return [(part, dim) for part, dim in ((self.rows, 1), (self.cols, 0)) if part is not None]


def from_upstream(statistics: Statistics, upstream: dict[tuple[bool, bool], Tensor]) -> Coefficients:
    """``W`` of a job's cross-entropies and KLs.

    Args:
        statistics: the job's.
        upstream: gradients ``[N]`` by (columns?, KL?), without those that are zero.
    """
    parts: dict[bool, Softened] = {}
    diagonal = torch.zeros_like(statistics.positives[0])
    for cols in (False, True):
        entropy, kl = upstream.get((cols, False)), upstream.get((cols, True))
        if entropy is None and kl is None:
            continue
        direction = statistics.direction(cols)
        if entropy is not None:
            # p - 1 at a positive, from the sum that leaves the positive out: subtracting would cancel it.
            diagonal = diagonal - entropy * direction.doubt()
        if kl is not None:
            diagonal = diagonal + kl * direction.excess()
            both = kl if entropy is None else entropy + kl
            parts[cols] = Softened(direction.m, both / direction.total, direction.m_t, kl / direction.total_t)
        elif entropy is not None:
            parts[cols] = Softened(direction.m, entropy / direction.total)
    return Coefficients(parts.get(False), parts.get(True), diagonal)


def reversed_from_upstream(statistics: Statistics, upstream: dict[tuple[bool, bool], Tensor]) -> Coefficients:
    """``W`` of a job's KLs from the teacher: its statistics are the teacher's first, and the student's second."""
    parts: dict[bool, Softened] = {}
    diagonal = torch.zeros_like(statistics.positives[0])
    for cols in (False, True):
        kl = upstream.get((cols, True))
        if kl is not None:
            of = statistics.direction(cols)
            weight, mean = kl / of.total_t, of.log_ratio_mean()
            parts[cols] = Softened(of.m_t, weight, of.m, mean=mean)
            diagonal = diagonal + weight * of.positive_t.exp() * (of.positive_t - of.positive - mean)
    return Coefficients(parts.get(False), parts.get(True), diagonal)


def residual(statistics: Statistics, row_share: float, col_share: float, factor: float = 1.0) -> Coefficients:
    """``W`` of ``factor`` times the summed cross-entropies of rows and of columns, each with its share."""
    parts: dict[bool, Softened] = {}
    diagonal = torch.zeros_like(statistics.positives[0])
    for cols, share in ((False, row_share), (True, col_share)):
        if not share:
            continue
        direction = statistics.direction(cols)
        diagonal = diagonal - share * factor * direction.doubt()
        parts[cols] = Softened(direction.m, share * factor / direction.total)
    return Coefficients(parts.get(False), parts.get(True), diagonal)
