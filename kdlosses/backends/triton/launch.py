"""Kernels on tensors: each function launches one kernel on one tile. Nothing here waits for the device."""

from __future__ import annotations

import triton
from torch import Tensor

from kdlosses.backends.triton import tuning
from kdlosses.backends.triton.grid import dot, dots, empty, launch, pick, programs, side, softened
from kdlosses.backends.triton.kernels.matmul import matmul_kernel
from kdlosses.backends.triton.kernels.stats import stats_kernel
from kdlosses.backends.triton.kernels.weights import weights_kernel
from kdlosses.backends.triton.operands import Cosines
from kdlosses.backends.triton.tuning import kind_of
from kdlosses.tiles.coefficients import Coefficients


def stats(
    student: Cosines,
    teacher: Cosines | None,
    positives: Tensor,
    diagonal: int,
    *,
    rows: bool,
    cols: bool,
    entropy: bool = False,
) -> tuple[Tensor | None, Tensor | None]:
    """Statistics of a tile's rows and columns (see ``tiles.statistics``), in parts that `merge` joins.

    Args:
        student: the tile's operands.
        teacher: those of the same tile of the teacher's relation, or None.
        positives: ``[1 or 2, R]`` float32; gets the logits of those positives that lie in this tile.
        diagonal: row i's positive is the tile's column ``i + diagonal``, if there is such a column.
        rows: whether the rows' statistics are wanted.
        cols: whether the columns' are.
        entropy: whether the teacher's entropies are, where there is a teacher.

    Returns:
        ``[parts, 2, 5 or 6, R]`` and ``[parts, 2, 5 or 6, C]`` float32; None for what is not wanted.
    """
    (height, width), entries = student.shape, 2 if teacher is None else 6 if entropy else 5
    tile = pick("stats", student, teacher)
    row_parts = empty(student, triton.cdiv(width, tile.BN), entries, height) if rows else None
    col_parts = empty(student, triton.cdiv(height, tile.BM), entries, width) if cols else None
    launch(
        stats_kernel,
        tile,
        (height, width),
        *side(student),
        *side(teacher),
        row_parts,
        col_parts,
        positives[0],
        None if teacher is None else positives[1],
        height,
        width,
        diagonal,
        **dots(student, tile),
        **dots(teacher or student, tile, "T_"),
        ENTROPY=entropy,
    )
    return row_parts, col_parts


def weights(
    student: Cosines,
    teacher: Cosines | None,
    coefficients: Coefficients,
    diagonal: int,
    out: Tensor,
    *,
    scale: bool,
) -> Tensor | None:
    """Write a tile of the derivative, ``scale * query_factors_i W_ij key_factors_j``, into ``out``.

    Args:
        student: the tile's operands.
        teacher: those of the teacher's relation, or None.
        coefficients: what ``W`` is made from, cut to the tile's rows and columns.
        diagonal: as in `stats`.
        out: ``[R, C]``, bfloat16 or float32.
        scale: whether ``sum(W * cosines)`` is wanted.

    Returns:
        ``[parts]`` float32, whose sum is that; or None.
    """
    tile = pick("weights", student, teacher)
    parts = empty(student, programs(tile, *student.shape)) if scale else None
    launch(
        weights_kernel,
        tile,
        student.shape,
        *side(student),
        *side(teacher),
        *softened(coefficients.rows),
        *softened(coefficients.cols),
        coefficients.diagonal,
        out,
        out.stride(0),
        parts,
        *student.shape,
        diagonal,
        **dots(student, tile),
        **dots(teacher or student, tile, "T_"),
    )
    return parts


def add_product(tile: Tensor, values: Tensor, factors: Tensor, out: Tensor, precision: str) -> None:
    """``out += (tile @ values) / factors[:, None]``, accumulated in float32.

    Args:
        tile: ``[M, K]``, bfloat16 or float32, or the transpose of such a tile.
        values: ``[K, D]``; unless both are of one 16-bit dtype, the product is one of float32 operands.
        factors: ``[M]`` float32.
        out: ``[M, D]`` float32, rows dense.
        precision: of products of float32 operands.
    """
    size = tuning.tile_for("matmul", kind_of(tile, values, precision), tile.device)
    operand, precision = dot(tile, values, precision)
    launch(
        matmul_kernel,
        size,
        (out.shape[0], out.shape[1]),
        tile,
        *tile.stride(),
        values,
        values.stride(0),
        factors,
        out,
        out.stride(0),
        *tile.shape,
        values.shape[1],
        EVEN=not (tile.shape[0] % size.BM or tile.shape[1] % size.BK or out.shape[1] % size.BN),
        OPERAND=operand,
        PRECISION=precision,
    )
