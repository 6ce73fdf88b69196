"""The launches of the second-order kernels (see ``tiles.second_order`` for the letters)."""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
from torch import Tensor

from kdlosses.backends.triton.grid import dots, empty, launch, pick, programs, side
from kdlosses.backends.triton.kernels.second import second_stats_kernel, second_weights_kernel
from kdlosses.backends.triton.operands import Cosines
from kdlosses.backends.triton.tuning import Tile
from kdlosses.tiles.coefficients import Coefficients, Softened


class Variation(NamedTuple):
    """What V is made from and compared with.

    Args:
        queries: ``[R, D]`` float32, contiguous: the upstream H, each row divided by its query factor.
        keys: ``[C, D]`` float32, contiguous: the upstream G, each row divided by its key factor.
        row_positives: ``[R]`` float32, V at each row's positive.
        col_positives: ``[C]`` float32, V at each column's positive; not read where columns are not asked for.
    """

    queries: Tensor
    keys: Tensor
    row_positives: Tensor
    col_positives: Tensor

    def tile(self, rows: slice, cols: slice) -> Variation:
        """The part of one tile."""
        return Variation(self.queries[rows], self.keys[cols], self.row_positives[rows], self.col_positives[cols])


def second_stats(
    student: Cosines, variation: Variation, coefficients: Coefficients, diagonal: int
) -> tuple[Tensor | None, Tensor | None]:
    """Sums of ``w exp(z - m) (V - V at the positive)`` over the tile's columns and over its rows.

    Args:
        student: the tile's operands.
        variation: cut to the tile.
        coefficients: those of the residual, cut to the tile; they say which directions are wanted.
        diagonal: row i's positive is the tile's column ``i + diagonal``, if there is such a column.

    Returns:
        ``[parts, R]`` and ``[parts, C]`` float32, to be summed over the parts; None for what is not wanted.
    """
    (height, width), tile = student.shape, pick("second_stats", student)
    rows, cols = coefficients.rows, coefficients.cols
    row_parts = None if rows is None else empty(student, triton.cdiv(width, tile.BN), height)
    col_parts = None if cols is None else empty(student, triton.cdiv(height, tile.BM), width)
    launch(
        second_stats_kernel,
        tile,
        student.shape,
        *side(student),
        variation.queries,
        variation.keys,
        *_direction(rows, variation.row_positives),
        *_direction(cols, variation.col_positives),
        row_parts,
        col_parts,
        height,
        width,
        diagonal,
        **_constants(student, tile),
    )
    return row_parts, col_parts


def second_weights(
    student: Cosines,
    variation: Variation,
    coefficients: Coefficients,
    means: tuple[Tensor, Tensor],
    diagonal: int,
    out: tuple[Tensor, Tensor],
    *,
    scale: bool,
) -> Tensor | None:
    """Write the tiles of Z and of R, each as ``scale * query_factors_i . key_factors_j``.

    Args:
        student, variation, coefficients, diagonal: as in `second_stats`.
        means: ``[R]`` and ``[C]`` float32, what `second_stats` gives for all tiles, without the directions' shares.
        out: two ``[R, C]`` tiles of one dtype (bfloat16 or float32) and layout, for Z and for R.
        scale: whether ``sum(Z * cosines + R * V / scale)`` is wanted.

    Returns:
        ``[parts]`` float32, whose sum is that; or None.
    """
    tile, (curved, residual) = pick("second_weights", student), out
    parts = empty(student, programs(tile, *student.shape)) if scale else None
    launch(
        second_weights_kernel,
        tile,
        student.shape,
        *side(student),
        variation.queries,
        variation.keys,
        *_direction(coefficients.rows, variation.row_positives),
        means[0],
        *_direction(coefficients.cols, variation.col_positives),
        means[1],
        coefficients.diagonal,
        curved,
        residual,
        curved.stride(0),
        parts,
        *student.shape,
        diagonal,
        **_constants(student, tile),
    )
    return parts


def _direction(part: Softened | None, positives: Tensor) -> list[Tensor | None]:
    return [None] * 3 if part is None else [part.m, part.w, positives]


def _constants(student: Cosines, tile: Tile) -> dict[str, Any]:
    return dots(student, tile) | {"H_PRECISION": student.precision}
