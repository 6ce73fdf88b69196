"""The large tiles that kernels are launched on."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from kdlosses.backends.triton.operands import Cosines
from kdlosses.relation import Relation
from kdlosses.tiles.blocks import blocks
from kdlosses.tiles.coefficients import Coefficients

_ALIGNMENT = 16  # entries: rows of a stored tile begin where vector accesses may


def tiles(relation: Relation, size: int) -> Iterator[tuple[slice, slice, int]]:
    """Rows, columns and diagonal of each tile: its row i has its positive in its column ``i + diagonal``."""
    count, others = relation.shape
    for rows in blocks(count, size):
        for cols in blocks(others, size):
            yield rows, cols, relation.offset + rows.start - cols.start


def cut(coefficients: Coefficients, rows: slice, cols: slice) -> Coefficients:
    """The vectors of one tile."""
    of_rows = None if coefficients.rows is None else coefficients.rows.block(rows)
    of_cols = None if coefficients.cols is None else coefficients.cols.block(cols)
    return Coefficients(of_rows, of_cols, coefficients.diagonal[rows])


class Storage:
    """Memory for one stored tile, used again by each."""

    def __init__(self, cosines: Cosines, size: int, dtype: torch.dtype) -> None:
        height, width = (min(size, length) for length in cosines.shape)
        pitch = (width + _ALIGNMENT - 1) // _ALIGNMENT * _ALIGNMENT
        self._memory = torch.empty(height, pitch, dtype=dtype, device=cosines.queries.device)

    def tile(self, rows: slice, cols: slice) -> Tensor:
        """The tile between these, its contents undefined."""
        return self._memory[: rows.stop - rows.start, : cols.stop - cols.start]
