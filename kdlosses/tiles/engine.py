"""The engine in plain torch, which the dense and the chunked backend share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from kdlosses.tiles.blocks import Workspace
from kdlosses.tiles.coefficients import Coefficients
from kdlosses.tiles.companions import Pass, in_step, side_by_side
from kdlosses.tiles.measure import measuring
from kdlosses.tiles.products import Share, Sums, adding_products
from kdlosses.tiles.program import Gradient, Job, SigmoidJob
from kdlosses.tiles.second_order import SecondWalk, Upstream, add_second_products
from kdlosses.tiles.sigmoid import ByTarget, add_sigmoid_products, sigmoid_sums
from kdlosses.tiles.statistics import Statistics
from kdlosses.tiles.walk import Companions, Kept, Walk


@dataclass(frozen=True)
class TorchEngine:
    """Goes over tiles with torch's own operations.

    Args:
        size: rows and columns of a tile, None for the whole matrix.
        keeps: whether logits computed forward serve backward too.
    """

    size: int | None
    keeps: bool

    def measure(self, jobs: Sequence[Job], kept: Kept) -> list[Statistics]:
        """See `kdlosses.tiles.measure`."""
        return self._together(jobs, kept, [partial(measuring, job) for job in jobs])

    def add_products(self, shares: Sequence[Share], kept: Kept, exact: bool = False) -> None:
        """See `kdlosses.tiles.products`."""
        self._together([share[0] for share in shares], kept, [partial(adding_products, *share) for share in shares])

    def _together(self, jobs: Sequence[Job], kept: Kept, passes: Sequence[Callable[[Walk], Pass]]) -> list[Any]:
        """What the passes return, each in its place; those of jobs that share relations go side by side."""
        found: list[Any] = [None] * len(jobs)
        # Kept logits are shared anyway.
        groups = [[i] for i in range(len(jobs))] if self.keeps else side_by_side(jobs)
        for group in groups:
            walks = self._walks([jobs[i] for i in group], kept)
            answers = in_step([passes[i](walk) for i, walk in zip(group, walks, strict=True)])
            for i, answer in zip(group, answers, strict=True):
                found[i] = answer
        return found

    def _walks(self, jobs: Sequence[Job], kept: Kept) -> list[Walk]:
        if len(jobs) == 1:
            return [self._walk(jobs[0], kept)]
        rows = jobs[0].relation.queries
        companions = Companions(Workspace(rows.values, rows.dtype))
        return [Walk(job.relation, self.size, None, companions) for job in jobs]

    def add_second_products(
        self, job: Job, shares: Gradient, coefficients: Coefficients, upstream: Upstream, sums: Sums, kept: Kept
    ) -> None:
        """See `kdlosses.tiles.second_order`."""
        walk = SecondWalk(job, shares, coefficients, upstream, self.size, kept if self.keeps else None)
        add_second_products(job, walk, sums)

    def sigmoid_sums(self, job: SigmoidJob, kept: Kept) -> ByTarget:
        """See `kdlosses.tiles.sigmoid`."""
        return sigmoid_sums(job, self._walk(job, kept))

    def add_sigmoid_products(self, job: SigmoidJob, upstream: ByTarget, sums: Sums, kept: Kept) -> None:
        """See `kdlosses.tiles.sigmoid`."""
        add_sigmoid_products(job, upstream, sums, self._walk(job, kept))

    def _walk(self, job: Job | SigmoidJob, kept: Kept) -> Walk:
        return Walk(job.relation, self.size, kept if self.keeps else None)
