"""The engine in plain torch, which the dense and the chunked backend share."""

from __future__ import annotations

from dataclasses import dataclass

from kdlosses.tiles.coefficients import Coefficients
from kdlosses.tiles.measure import measure
from kdlosses.tiles.products import Sums, add_products
from kdlosses.tiles.program import Gradient, Job, SigmoidJob
from kdlosses.tiles.second_order import SecondWalk, Upstream, add_second_products
from kdlosses.tiles.sigmoid import ByTarget, add_sigmoid_products, sigmoid_sums
from kdlosses.tiles.statistics import Statistics
from kdlosses.tiles.walk import Kept, Walk


@dataclass(frozen=True)
class TorchEngine:
    """Goes over tiles with torch's own operations.

    Args:
        size: rows and columns of a tile, None for the whole matrix.
        keeps: whether logits computed forward serve backward too.
    """

    size: int | None
    keeps: bool

    def measure(self, job: Job, kept: Kept) -> Statistics:
        """See `kdlosses.tiles.measure`."""
        return measure(job, self._walk(job, kept))

    def add_products(self, job: Job, coefficients: Coefficients, sums: Sums, kept: Kept, exact: bool = False) -> None:
        """See `kdlosses.tiles.products`."""
        add_products(job, coefficients, sums, self._walk(job, kept))

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
