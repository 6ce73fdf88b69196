"""Binary cross-entropies of sigmoids, tile by tile: sums of rows forward, a tile of their derivative backward.

With ``z`` a logit and its bias, ``q`` the target: ``-q log sigmoid(z) - (1 - q) log sigmoid(-z)`` is
``log(1 + exp(-|z|))`` plus ``|z|`` times the target's share against z's sign, ``1 - q`` where z > 0 and ``q`` where
z < 0. Both are at least 0, and with ``q = sigmoid(z_t)`` that share is ``sigmoid(-sign(z) z_t)``: nothing cancels. The
derivative is ``sigmoid(z) - sigmoid(z_t)``, read as ``sigmoid(-z_t) - sigmoid(-z)`` where z + z_t > 0: whichever of p
and 1 - p is small has the digits.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from kdlosses.tiles.blocks import Positives
from kdlosses.tiles.products import Sums, adding_tiles
from kdlosses.tiles.program import SigmoidJob
from kdlosses.tiles.walk import Walk


class ByTarget(NamedTuple):
    """``[N]`` for each kind of target: row sums, or the gradients that arrive at them; None for what is not there."""

    labels: Tensor | None
    taught: Tensor | None

    def of(self, taught: bool) -> Tensor:
        """The vector of one kind, which must be there."""
        found = self.taught if taught else self.labels
        assert found is not None, "this kind of target was not asked for"
        return found


def sigmoid_sums(job: SigmoidJob, walk: Walk) -> ByTarget:
    """The sums of the rows against each target that ``job`` has."""
    taught = job.teacher is not None
    sums = torch.zeros(job.labels + taught, job.relation.shape[0], dtype=walk.work.dtype, device=walk.work.device)
    for rows, cols, where in walk.tiles():
        table = walk.logits("logits 0", job.relation, rows, cols)
        shape = table.shape
        shifted = torch.add(table, job.bias, out=walk.work.get("shifted", *shape))
        size = torch.abs(shifted, out=walk.work.get("size", *shape))
        # Of a number that is at most 0, so that exp cannot overflow; log1p keeps what 1 plus it would round away.
        least = torch.neg(size, out=walk.work.get("part", *shape)).exp_().log1p_().sum(1)
        parts = []
        if job.labels:
            parts.append(_against_labels(shifted, where, walk.work.get("part", *shape)))
        if job.teacher is not None and job.teacher_bias is not None:
            table = walk.logits("logits 1", job.teacher, rows, cols)
            share = torch.add(table, job.teacher_bias, out=walk.work.get("part", *shape))
            share = share.mul_(shifted.sign_()).neg_().sigmoid_()
            parts.append(share.mul_(size).sum(1))
        sums[:, rows] += least + torch.stack(parts)
    found = iter(sums)
    return ByTarget(next(found) if job.labels else None, next(found) if taught else None)


def _against_labels(shifted: Tensor, where: Positives, out: Tensor | None) -> Tensor:
    """Row sums of ``|z|`` where z's sign is not the label's."""
    wrong = torch.clamp(shifted, min=0, out=out)
    if where.any:
        where.of(wrong).copy_(where.of(shifted).neg().clamp_(min=0))
    return wrong.sum(1)


def add_sigmoid_products(job: SigmoidJob, upstream: ByTarget, sums: Sums, walk: Walk) -> None:
    """Add what the gradients ``upstream`` of the row sums come to for queries, keys, scale and bias to ``sums``."""
    for _ in adding_tiles(sums, walk, lambda rows, cols: _derivative(job, upstream, walk, rows, cols)):
        pass


def _derivative(job: SigmoidJob, upstream: ByTarget, walk: Walk, rows: slice, cols: slice) -> Tensor:
    """One tile of the derivative with respect to the logits, in a buffer of the walk."""
    logits, tile = walk.logits("logits 0", job.relation, rows, cols), None
    if upstream.labels is not None:
        tile = torch.add(logits, job.bias, out=walk.work.get("derivative", *logits.shape))
        _off_labels(tile, walk.positives(rows, cols)).mul_(upstream.labels[rows, None])
    if upstream.taught is not None:
        gap = _off_teacher(job, logits, walk, rows, cols).mul_(upstream.taught[rows, None])
        tile = gap if tile is None else tile.add_(gap)
    assert tile is not None, "one kind of target at least"
    return tile


def _off_labels(tile: Tensor, where: Positives) -> Tensor:
    """``sigmoid(z)`` and, at the positives, ``-sigmoid(-z)``, in the place of z."""
    own = where.of(tile).neg().sigmoid_().neg_() if where.any else None
    tile.sigmoid_()
    if own is not None:
        where.of(tile).copy_(own)
    return tile


def _off_teacher(job: SigmoidJob, logits: Tensor, walk: Walk, rows: slice, cols: slice) -> Tensor:
    """``sigmoid(z) - sigmoid(z_t)``."""
    assert job.teacher is not None and job.teacher_bias is not None, "there is a gradient of the sums against it"
    theirs = walk.logits("logits 1", job.teacher, rows, cols)
    ours = torch.add(logits, job.bias, out=walk.work.get("ours", *logits.shape))
    theirs = torch.add(theirs, job.teacher_bias, out=walk.work.get("theirs", *logits.shape))
    # Both are read from the side on which they are small, where their difference has digits.
    side = torch.add(ours, theirs, out=walk.work.get("side", *logits.shape))
    side = torch.copysign(torch.ones_like(job.bias), side, out=walk.work.get("side", *logits.shape))
    ours, theirs = [one.mul_(side).neg_().sigmoid_() for one in (ours, theirs)]
    return theirs.sub_(ours).mul_(side)
