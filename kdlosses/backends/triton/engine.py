"""The engine on Triton's kernels: which tiles they are launched on, and what becomes of what they write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kdlosses.backends.chunked import tile_size
from kdlosses.backends.triton import launch
from kdlosses.backends.triton.operands import cosines_of
from kdlosses.backends.triton.second_engine import add_second_products
from kdlosses.backends.triton.sigmoid_engine import add_sigmoid_products, sigmoid_sums
from kdlosses.backends.triton.tiles import Storage, cut, tiles
from kdlosses.requests import Request
from kdlosses.tiles import function
from kdlosses.tiles.coefficients import Coefficients
from kdlosses.tiles.engine import TorchEngine
from kdlosses.tiles.products import Share, Sums
from kdlosses.tiles.program import Gradient, Job, SigmoidJob
from kdlosses.tiles.second_order import Upstream
from kdlosses.tiles.sigmoid import ByTarget
from kdlosses.tiles.statistics import Statistics, merge
from kdlosses.tiles.walk import Kept

# The forward pass stores no tile: its statistics take a twelfth of the bytes, so larger tiles save launches.
_FORWARD = 2


# A compiler cannot see through launches; it breaks its graph here.
@torch.compiler.disable  # type: ignore[untyped-decorator]  # torch has no types for it
def evaluate(requests: Sequence[Request], precision: str, tile_size: int) -> list[Any]:
    """The answers to ``requests``, in order, differentiable once."""
    return function.evaluate(requests, TritonEngine(precision, tile_size))


@dataclass(frozen=True)
class TritonEngine:
    """Goes over tiles with kernels; nothing is kept between the passes.

    Args:
        precision: of float32 products.
        tile_size: rows and columns of a stored tile.
    """

    precision: str
    tile_size: int

    @property
    def size(self) -> int:
        """Rows and columns of a tile."""
        return self.tile_size

    def measure(self, jobs: Sequence[Job], kept: Kept) -> list[Statistics]:
        """The statistics of the directions that each of ``jobs`` asks for."""
        return [self._measure(job, kept) for job in jobs]

    def _measure(self, job: Job, kept: Kept) -> Statistics:
        if not _has_kernels(job):
            return _torch_engine(job).measure([job], kept)[0]
        student = cosines_of(job.relation, self.precision)
        teacher = None if job.teacher is None else cosines_of(job.teacher, self.precision)
        positives = student.query_factors.new_empty(1 if teacher is None else 2, job.relation.shape[0])
        running: dict[tuple[bool, int], Tensor] = {}
        for rows, cols, diagonal in tiles(job.relation, _FORWARD * self.tile_size):
            parts = launch.stats(
                student.tile(rows, cols),
                None if teacher is None else teacher.tile(rows, cols),
                positives[:, rows],
                diagonal,
                rows=job.rows,
                cols=job.cols,
                entropy=job.entropy,
            )
            for across in job.directions:
                key, part = (across, (cols if across else rows).start), parts[across]
                assert part is not None, "launched with this direction asked for"
                running[key] = merge(torch.cat([running[key][None], part]) if key in running else part)
        return Statistics(_finish(running, False, positives), _finish(running, True, positives), positives)

    def add_products(self, shares: Sequence[Share], kept: Kept, exact: bool = False) -> None:
        """Add each job's ``scale W @ keys``, ``scale W.T @ queries`` and ``sum(W * cosines)`` to its sums.

        Gradients may carry the rounding of 16-bit inputs; answers, for which ``exact`` is set, must not.
        """
        for share in shares:
            if _has_kernels(share[0]):
                self._add_products(*share, exact)
            else:
                _torch_engine(share[0]).add_products([share], kept)

    def _add_products(self, job: Job, coefficients: Coefficients, sums: Sums, exact: bool) -> None:
        student = cosines_of(job.relation, self.precision)
        taught = any(part.w_t is not None for part, _ in coefficients.directions())
        teacher = cosines_of(job.teacher, self.precision) if taught and job.teacher is not None else None
        storage = Storage(student, self.tile_size, torch.float32 if exact else student.storage)
        precision = student.exact if exact else student.precision
        for rows, cols, diagonal in tiles(job.relation, self.tile_size):
            part, tile = student.tile(rows, cols), storage.tile(rows, cols)
            scale = launch.weights(
                part,
                None if teacher is None else teacher.tile(rows, cols),
                cut(coefficients, rows, cols),
                diagonal,
                tile,
                scale=sums.scale is not None,
            )
            if sums.scale is not None and scale is not None:
                sums.scale.add_(scale.sum())
            if sums.queries is not None:
                launch.add_product(tile, part.keys, part.query_factors, sums.queries[rows], precision)
            if sums.keys is not None:
                launch.add_product(tile.T, part.queries, part.key_factors, sums.keys[cols], precision)

    def add_second_products(
        self, job: Job, shares: Gradient, coefficients: Coefficients, upstream: Upstream, sums: Sums, kept: Kept
    ) -> None:
        """Add the gradients of ``sum(H * A) + sum(G * B)`` to ``sums`` (see ``tiles.second_order``)."""
        student = cosines_of(job.relation, self.precision)
        add_second_products(job.relation, student, shares, coefficients, upstream, sums, self.tile_size)

    def sigmoid_sums(self, job: SigmoidJob, kept: Kept) -> ByTarget:
        """The row sums against the targets that ``job`` has."""
        return sigmoid_sums(job, self.precision, _FORWARD * self.tile_size)

    def add_sigmoid_products(self, job: SigmoidJob, upstream: ByTarget, sums: Sums, kept: Kept) -> None:
        """As `add_products`, for the derivative of those sums and its sum, the bias's gradient."""
        add_sigmoid_products(job, upstream, sums, self.precision, self.tile_size)


def _has_kernels(job: Job) -> bool:
    """Whether kernels know what ``job`` asks: softmaxes over rows that have a positive each, in the one direction."""
    return job.relation.diagonal == "positive" and not job.reverse


def _torch_engine(job: Job) -> TorchEngine:
    """What does the rest: the tiles of the chunked backend, on the same device and in float32."""
    rows = job.relation.queries
    return TorchEngine(tile_size(rows.values.device.type, rows.dtype), keeps=False)


def _finish(running: dict[tuple[bool, int], Tensor], across: bool, positives: Tensor) -> Tensor | None:
    """All blocks of one direction, and the positives as a part of their own that adds nothing to the sums."""
    parts = [part for (key, _), part in running.items() if key == across]
    if not parts:
        return None
    others = torch.cat(parts, dim=1)
    own = torch.zeros_like(others)
    own[0] = positives[0]
    if len(positives) == 2:
        own[2] = positives[1]
    return merge(torch.stack([others, own]))
