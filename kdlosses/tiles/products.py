"""The backward pass: each tile of a derivative, multiplied with the keys and, transposed, with the queries."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass

import torch
from torch import Tensor

from kdlosses.tiles.blocks import Positives
from kdlosses.tiles.coefficients import Coefficients, Softened
from kdlosses.tiles.program import Job
from kdlosses.tiles.walk import Walk


@dataclass(eq=False)
class Sums:
    """Where products are added: gradients of the unit queries ``[N, D]``, unit keys ``[M, D]``, scale and bias ``[]``.

    None for what nobody asks for.
    """

    queries: Tensor | None
    keys: Tensor | None
    scale: Tensor | None
    bias: Tensor | None = None

    @property
    def any(self) -> bool:
        """Whether anything is asked for."""
        return any(total is not None for total in (self.queries, self.keys, self.scale, self.bias))

    @property
    def wants_queries(self) -> bool:
        """Whether the product with the keys is needed: the scale's gradient is its inner product with the queries."""
        return self.queries is not None or self.scale is not None


# A job, the derivative of its answers, and where its products go.
Share = tuple[Job, Coefficients, Sums]


def adding_products(job: Job, coefficients: Coefficients, sums: Sums, walk: Walk) -> Generator[None, None, None]:
    """Adds ``scale W @ keys``, ``scale W.T @ queries`` and ``sum(W * cosines)`` to ``sums``; stops after each tile."""
    return adding_tiles(sums, walk, lambda rows, cols: derivative(job, coefficients, walk, rows, cols))


def adding_tiles(sums: Sums, walk: Walk, make: Callable[[slice, slice], Tensor]) -> Generator[None, None, None]:
    """As `adding_products`, and ``sum(W)`` for a bias; ``make`` gives the tile of W of these rows and columns."""
    for rows in walk.row_blocks:
        total = None  # the block's product with all keys, in one buffer: the gradient's memory is written once
        for cols in walk.col_blocks:
            tile = make(rows, cols)
            if sums.bias is not None:
                sums.bias.add_(tile.sum())
            if sums.wants_queries:
                total = times_keys(walk, tile, cols, total)
            if sums.keys is not None:
                sums.keys[cols].addmm_(tile.T, walk.scaled("logits 0", walk.relation, rows))
            yield
        add_rows(walk, sums, rows, total)


def times_keys(walk: Walk, tile: Tensor, cols: slice, total: Tensor | None) -> Tensor:
    """``total + tile @ keys``."""
    keys = walk.keys("logits 0", walk.relation, cols)
    if total is None:
        return torch.mm(tile, keys, out=walk.own.get("total", len(tile), keys.shape[1]))
    return total.addmm_(tile, keys)


def add_rows(walk: Walk, sums: Sums, rows: slice, total: Tensor | None) -> None:
    """Book one block's finished product with the keys: the queries' gradient, and its share of the scale's."""
    if total is None:
        return
    # The scale's share first: the line for the queries multiplies the total in place.
    if sums.scale is not None:
        queries = walk.work.unit("queries", walk.relation.queries, rows)
        sums.scale.add_(queries.mul_(total).sum())
    if sums.queries is not None:
        sums.queries[rows].add_(total.mul_(walk.relation.scale))


def derivative(job: Job, coefficients: Coefficients, walk: Walk, rows: slice, cols: slice) -> Tensor:
    """One tile of ``W`` (see ``coefficients``), in a buffer of the walk."""
    if job.reverse:
        return _reversed(job, coefficients, walk, rows, cols)
    logits = walk.logits("logits 0", job.relation, rows, cols)
    parts: list[tuple[Softened, int]] = []
    tile = None
    for whole, dim in coefficients.directions():
        part = whole.block(rows if dim == 1 else cols)
        parts.append((part, dim))
        tile = _add(walk, tile, logits, part.m.unsqueeze(dim), part.w.unsqueeze(dim))
    if job.teacher is not None and any(part.w_t is not None for part, _ in parts):
        teacher = walk.logits("logits 1", job.teacher, rows, cols)
        for part, dim in parts:
            if part.m_t is not None and part.w_t is not None:
                tile = _add(walk, tile, teacher, part.m_t.unsqueeze(dim), part.w_t.neg().unsqueeze(dim))
    assert tile is not None, "coefficients are of one direction at least"
    set_positives(tile, walk.positives(rows, cols), coefficients.diagonal)
    return tile


def _reversed(job: Job, coefficients: Coefficients, walk: Walk, rows: slice, cols: slice) -> Tensor:
    """The same for the student's KL from the teacher."""
    assert job.teacher is not None, "there is no KL without a teacher"
    logits = walk.logits("logits 0", job.relation, rows, cols)
    teacher = walk.logits("logits 1", job.teacher, rows, cols)
    total = None
    for whole, dim in coefficients.directions():
        part = whole.block(rows if dim == 1 else cols)
        assert part.m_t is not None and part.mean is not None, "made for this kind of job"
        # Of shifted logits the differences are small where the student puts its weight.
        ratio = torch.sub(logits, part.m.unsqueeze(dim), out=walk.work.get("ratio", *logits.shape))
        ratio.sub_(teacher).add_((part.m_t - part.mean).unsqueeze(dim))
        total = _add(walk, total, logits, part.m.unsqueeze(dim), part.w.unsqueeze(dim), ratio)
    assert total is not None, "coefficients are of one direction at least"
    set_positives(total, walk.positives(rows, cols), coefficients.diagonal)
    return total


def _add(walk: Walk, tile: Tensor | None, logits: Tensor, m: Tensor, w: Tensor, factor: Tensor | None = None) -> Tensor:
    """``tile + w exp(logits - m)``, that times ``factor`` where there is one."""
    name = "derivative" if tile is None else "softened"
    soft = torch.sub(logits, m, out=walk.work.get(name, *logits.shape)).exp_().mul_(w)
    if factor is not None:
        soft.mul_(factor)
    return soft if tile is None else tile.add_(soft)


def set_positives(tile: Tensor, where: Positives, diagonal: Tensor) -> None:
    """Write the derivative at the positives of a tile."""
    if where.any:
        where.of(tile).copy_(diagonal[where.rows])
