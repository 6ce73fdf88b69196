"""The backward pass of a gradient: products of the softmax's second derivative.

The answers are ``A = c R K`` and ``B = c R^T Q`` with residual ``R = share_r (P_r - I) + share_c (P_c - I)``. For
upstream ``H`` (of A) and ``G`` (of B), with ``V = c (H K^T + Q G^T)``, the derivative with respect to the logits is,
for the rows, ``Z = share_r P_r * (V - r)``, ``r`` the row sums of ``P_r * V``, and likewise for the columns. Rows of V
are taken relative to their value at the positive, where confident rows have all their weight and r would cancel it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from kdlosses.tiles.coefficients import Coefficients, Softened
from kdlosses.tiles.products import Sums, add_rows, set_positives, times_keys
from kdlosses.tiles.program import Gradient, Job
from kdlosses.tiles.walk import Kept, Walk


class Upstream(NamedTuple):
    """Gradients of the answers: ``queries`` [N, D] of A, ``keys`` [M, D] of B."""

    queries: Tensor
    keys: Tensor


class Centers(NamedTuple):
    """What is subtracted from V in each direction: its value at the positive, and then its mean under the softmax."""

    positives: Tensor
    rows: Tensor | None
    cols: Tensor | None


def add_second_products(job: Job, walk: SecondWalk, sums: Sums) -> None:
    """Add the gradients of ``sum(H * A) + sum(G * B)`` to ``sums``."""
    centers = walk.centers()
    for rows in walk.row_blocks:
        total = None
        for cols in walk.col_blocks:
            curved, tile = walk.curved_and_residual(rows, cols, centers)
            # The softmax's change meets the keys; the softmax itself meets what arrived at the other answer.
            total = times_keys(walk, curved, cols, total)
            if sums.keys is not None:
                sums.keys[cols].addmm_(curved.T, walk.scaled("logits 0", job.relation, rows))
            total.addmm_(tile, walk.upstream.keys[cols])
            walk.add_to_keys(tile, rows, cols, sums)
        add_rows(walk, sums, rows, total)


class SecondWalk(Walk):
    """A walk that also makes tiles of V, kept between its two passes where logits are; ``coefficients`` hold R."""

    def __init__(
        self,
        job: Job,
        shares: Gradient,
        coefficients: Coefficients,
        upstream: Upstream,
        size: int | None,
        kept: Kept | None,
    ) -> None:
        super().__init__(job.relation, size, kept)
        self.shares, self.coefficients, self.upstream = shares, coefficients, upstream
        self._variations: dict[tuple[int, int], Tensor] = {}  # the one of the moment where logits are not kept

    def centers(self) -> Centers:
        """The first pass: the mean of V under each softmax, relative to the positives."""
        none = Centers(self._positives(), None, None)
        sums = {dim: torch.zeros_like(part.m) for part, dim in self.coefficients.directions()}
        for rows, cols, _ in self.tiles():
            for part, dim in self.coefficients.directions():
                block = cols if dim == 0 else rows
                soft = self._soft(part, rows, cols, dim)
                sums[dim][block] += soft.mul_(self._centered(rows, cols, dim, none)).sum(dim)
        # The softmax comes with its direction's share; its mean does not.
        row_means = sums[1] / self.shares.row_share if 1 in sums else None
        col_means = sums[0] / self.shares.col_share if 0 in sums else None
        return Centers(none.positives, row_means, col_means)

    def curved_and_residual(self, rows: slice, cols: slice, centers: Centers) -> tuple[Tensor, Tensor]:
        """Tiles of Z and of R, which are made of the same softmaxes."""
        curved = residual = None
        for part, dim in self.coefficients.directions():
            soft = self._soft(part, rows, cols, dim, "soft" if curved is not None else "residual")
            turned = self._centered(rows, cols, dim, centers).mul_(soft)
            if curved is None or residual is None:
                curved, residual = self.work.get("curved", *_shape(rows, cols)).copy_(turned), soft
            else:
                curved, residual = curved.add_(turned), residual.add_(soft)
        assert curved is not None and residual is not None, "coefficients are of one direction at least"
        set_positives(residual, self.positives(rows, cols), self.coefficients.diagonal)
        return curved, residual

    def add_to_keys(self, tile: Tensor, rows: slice, cols: slice, sums: Sums) -> None:
        """Add the direct part ``c W^T H`` to the keys' gradient, and its share of the scale's."""
        if sums.keys is None and sums.scale is None:
            return
        product = torch.mm(tile.T, self.upstream.queries[rows], out=self.work.get("keys", len(tile.T), self._width))
        if sums.scale is not None:
            keys = self.keys("logits 0", self.relation, cols)
            sums.scale.add_(torch.mul(keys, product, out=self.work.get("inner", *keys.shape)).sum())
        if sums.keys is not None:
            sums.keys[cols].add_(product.mul_(self.relation.scale))

    @property
    def _width(self) -> int:
        return self.upstream.queries.shape[1]

    def _positives(self) -> Tensor:
        """``[N]``: V at each row's positive."""
        queries, keys = self.relation.queries, self.relation.keys
        found = torch.zeros_like(self.coefficients.diagonal)
        for rows in self.row_blocks:
            cols = slice(rows.start + self.relation.offset, rows.stop + self.relation.offset)
            first = self.work.unit("inner", keys, cols).mul_(self.upstream.queries[rows]).sum(1)
            second = self.work.unit("inner", queries, rows).mul_(self.upstream.keys[cols]).sum(1)
            found[rows] = first.add_(second).mul_(self.relation.scale)
        return found

    def _variation(self, rows: slice, cols: slice) -> Tensor:
        """A tile of V."""
        at = rows.start, cols.start
        if at in self._variations:
            return self._variations[at]
        out = None
        if self.kept is None:
            self._variations.clear()
            out = self.work.get("variation", *_shape(rows, cols))
        keys = self.keys("logits 0", self.relation, cols)
        tile = torch.mm(self.upstream.queries[rows], keys.T, out=out).mul_(self.relation.scale)
        tile.addmm_(self.scaled("logits 0", self.relation, rows), self.upstream.keys[cols].T)
        self._variations[at] = tile
        return tile

    def _centered(self, rows: slice, cols: slice, dim: int, centers: Centers) -> Tensor:
        """V less its value at the positive and, where known, less its mean."""
        # A column's positive belongs to the row of the same number: columns are asked for in square relations alone.
        block, means = (rows, centers.rows) if dim == 1 else (cols, centers.cols)
        tile = torch.sub(
            self._variation(rows, cols),
            centers.positives[block].unsqueeze(dim),
            out=self.work.get("centered", *_shape(rows, cols)),
        )
        self.positives(rows, cols).zero(tile)
        return tile if means is None else tile.sub_(means[block].unsqueeze(dim))

    def _soft(self, part: Softened, rows: slice, cols: slice, dim: int, name: str = "soft") -> Tensor:
        """``w exp(z - m)``: the probabilities times their direction's share."""
        block = rows if dim == 1 else cols
        logits = self.logits("logits 0", self.relation, rows, cols)
        soft = torch.sub(logits, part.m[block].unsqueeze(dim), out=self.work.get(name, *logits.shape))
        return soft.exp_().mul_(part.w[block].unsqueeze(dim))


def _shape(rows: slice, cols: slice) -> tuple[int, int]:
    return rows.stop - rows.start, cols.stop - cols.start
