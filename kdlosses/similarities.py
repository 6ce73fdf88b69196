"""How far two sets of similarities are apart, without a matrix of either: products of D x D in their place.

With unit queries q, keys k of one relation and x, t of another, and M keys,
``sum_j (q . k_j - x . t_j)^2 = q . (K q - C x) + x . (T x - C^T q)`` with ``K = sum_j k_j k_j^T``,
``C = sum_j k_j t_j^T``, ``T = sum_j t_j t_j^T``. Near the optimum these terms cancel, so they are summed in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kdlosses.relation import Relation
from kdlosses.requests import Request
from kdlosses.rows import Rows
from kdlosses.tiles.blocks import blocks
from kdlosses.tiles.distance import to_values
from kdlosses.tiles.function import constants, refuse_transforms

_BLOCK = 2048  # rows that are made float64 at a time


@dataclass(eq=False)
class SquaredDifference(Request):
    """``[N]``: the mean over M keys of the squared difference between two relations' cosines; scales are not read.

    All rows that ask for a gradient get one.
    """

    first: Relation
    second: Relation

    def answer(self) -> Tensor:
        """See `Request`."""
        first, second = (one.queries.normalized() @ one.keys.normalized().T for one in self.relations())
        return (first - second).square().mean(1)

    def solve(self, size: int | None) -> Tensor:
        """See `Request`: linear in the rows, whatever ``size`` is."""
        if not torch.compiler.is_compiling():
            refuse_transforms()
        known: list[Rows] = []
        sides = tuple(_number(known, rows) for rows in self.rows())
        flat = [tensor for rows in known for tensor in (rows.values, rows.inverse_norms)]
        found: Tensor = _Differences.apply(sides, *flat)
        return found

    def relations(self) -> list[Relation]:
        """See `Request`."""
        return [self.first, self.second]

    def kept(self) -> list[Relation]:
        """See `Request`: none."""
        return []


class _Differences(torch.autograd.Function):
    """``sides``: which of the rows are queries and keys of the first relation, and of the second."""

    @staticmethod
    def forward(ctx: Any, sides: Sequence[int], *flat: Tensor) -> Tensor:
        ctx.sides = sides
        if torch.compiler.is_compiling():
            ctx.save_for_backward(*flat)
            traced: Tensor = _values_op(list(flat), sides)
            return traced
        # Autograd cannot save what a teacher has made under inference_mode.
        ctx.save_for_backward(*(tensor.clone() if tensor.is_inference() else tensor for tensor in flat))
        return _values(flat, sides)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        flat, compiling = list(ctx.saved_tensors), torch.compiler.is_compiling()
        if not compiling:
            refuse_transforms([upstream])
        needed = list(ctx.needs_input_grad[1::2])
        with torch.no_grad():
            made = (_gradients_op if compiling else _gradients)(flat, ctx.sides, upstream, needed)
        found = iter(constants(made, (upstream, *flat)) if torch.is_grad_enabled() and not compiling else made)
        by_rows = [(next(found) if need else None, None) for need in needed]
        return None, *(one for both in by_rows for one in both)


def _values(flat: Sequence[Tensor], sides: Sequence[int]) -> Tensor:
    queries, keys, others, targets = (_rows(flat, number) for number in sides)
    ours, mixed, theirs = _moments(keys, keys), _moments(keys, targets), _moments(targets, targets)
    found = torch.empty_like(queries.inverse_norms)
    for block in _blocks(queries):
        q, x = _unit(queries, block), _unit(others, block)
        found[block] = (q * (q @ ours - x @ mixed.T)).sum(1) + (x * (x @ theirs - q @ mixed)).sum(1)
    return found.div_(keys.values.shape[0]).clamp_min_(0)  # below zero by rounding alone


def _gradients(flat: Sequence[Tensor], sides: Sequence[int], upstream: Tensor, needed: Sequence[bool]) -> list[Tensor]:
    """With respect to the values of the rows that need one."""
    queries, keys, others, targets = (_rows(flat, number) for number in sides)
    weights = (2 / keys.values.shape[0]) * upstream.double()
    totals = [torch.zeros_like(flat[2 * i], dtype=flat[1].dtype) if need else None for i, need in enumerate(needed)]
    # Queries are weighted by row; keys meet what weighted queries have summed.
    _add_gradient(totals[sides[0]], queries, others, (keys, targets), by_row=weights)
    _add_gradient(totals[sides[1]], keys, targets, (queries, others), inside=weights)
    _add_gradient(totals[sides[2]], others, queries, (targets, keys), by_row=weights)
    _add_gradient(totals[sides[3]], targets, keys, (others, queries), inside=weights)
    return [to_values(_rows(flat, i), total) for i, total in enumerate(totals) if total is not None]


def _add_gradient(
    total: Tensor | None,
    mine: Rows,
    other: Rows,
    through: tuple[Rows, Rows],
    by_row: Tensor | None = None,
    inside: Tensor | None = None,
) -> None:
    """Add ``mine (own^T own) - other (across^T own)``, (own, across) being ``through``: that to the unit rows."""
    if total is None:
        return
    own, across = through
    same, mixed = _moments(own, own, inside), _moments(across, own, inside)
    for block in _blocks(mine):
        part = _unit(mine, block) @ same - _unit(other, block) @ mixed
        total[block] += part if by_row is None else part * by_row[block, None]


def _moments(first: Rows, second: Rows, weights: Tensor | None = None) -> Tensor:
    """``sum_j w_j first_j second_j^T`` in float64."""
    shape = first.values.shape[1], second.values.shape[1]
    total = torch.zeros(shape, dtype=torch.float64, device=first.values.device)
    for block in _blocks(first):
        left = _unit(first, block)
        total.addmm_((left if weights is None else left * weights[block, None]).T, _unit(second, block))
    return total


def _number(known: list[Rows], rows: Rows) -> int:
    """Where ``rows`` stand in the list, to which they are added."""
    for number, other in enumerate(known):
        if other.values is rows.values:
            return number
    known.append(rows)
    return len(known) - 1


def _rows(flat: Sequence[Tensor], number: int) -> Rows:
    return Rows(flat[2 * number], flat[2 * number + 1])


def _blocks(rows: Rows) -> list[slice]:
    return blocks(rows.values.shape[0], _BLOCK)


def _unit(rows: Rows, block: slice) -> Tensor:
    return F.normalize(rows.values[block].double(), dim=1, eps=1e-12)


# As operators for a compiler: one graph for any number of rows, with the numbers of eager mode.
_values_op = torch.library.custom_op(
    "kdlosses::squared_differences", _values, mutates_args=(), schema="(Tensor[] flat, int[] sides) -> Tensor"
)
_gradients_op = torch.library.custom_op(
    "kdlosses::squared_differences_gradients",
    _gradients,
    mutates_args=(),
    schema="(Tensor[] flat, int[] sides, Tensor upstream, bool[] needed) -> Tensor[]",
)
_values_op.register_fake(lambda flat, sides: torch.empty_like(flat[2 * sides[0] + 1]))
_gradients_op.register_fake(
    lambda flat, sides, upstream, needed: [torch.empty_like(flat[2 * i]) for i, need in enumerate(needed) if need]
)
