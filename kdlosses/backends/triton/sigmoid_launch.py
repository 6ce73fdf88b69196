"""The sigmoids' kernels on tensors, as those in ``launch``."""

from __future__ import annotations

from typing import NamedTuple

import triton
from torch import Tensor

from kdlosses.backends.triton.grid import dots, empty, launch, pick, programs, side
from kdlosses.backends.triton.kernels.sigmoid import sigmoid_sums_kernel, sigmoid_weights_kernel
from kdlosses.backends.triton.operands import Cosines
from kdlosses.tiles.sigmoid import ByTarget


class Logits(NamedTuple):
    """The operands of a tile and the ``[]`` float32 bias that is added to its logits."""

    cosines: Cosines
    bias: Tensor

    def tile(self, rows: slice, cols: slice) -> Logits:
        """The part between these rows and columns."""
        return Logits(self.cosines.tile(rows, cols), self.bias)


def sigmoid_sums(student: Logits, teacher: Logits | None, diagonal: int, *, labels: bool) -> ByTarget:
    """Sums over a tile's columns, in parts that are to be added up.

    Args:
        student: the tile's logits.
        teacher: those of the same tile of the teacher's relation, or None.
        diagonal: row i's positive is the tile's column ``i + diagonal``, if there is such a column.
        labels: whether the sums against the labels are wanted; those against the teacher are where there is one.

    Returns:
        ``[parts, R]`` float32 for each target.
    """
    cosines, theirs = student.cosines, None if teacher is None else teacher.cosines
    height, width = cosines.shape
    tile = pick("sigmoid_sums", cosines, theirs)
    shape = triton.cdiv(width, tile.BN), height
    parts = ByTarget(*(empty(cosines, *shape) if wanted else None for wanted in (labels, teacher is not None)))
    launch(
        sigmoid_sums_kernel,
        tile,
        (height, width),
        *_sides(student, teacher),
        *parts,
        height,
        width,
        diagonal,
        **dots(cosines, tile),
        **dots(theirs or cosines, tile, "T_"),
    )
    return parts


def sigmoid_weights(
    student: Logits,
    teacher: Logits | None,
    upstream: ByTarget,
    diagonal: int,
    out: Tensor,
    *,
    scale: bool,
    bias: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """Write a tile of the derivative, ``scale * query_factors_i W_ij key_factors_j``, into ``out``.

    Args:
        student: the tile's logits.
        teacher: those of the teacher's relation where a gradient arrives at the sums against it, or None.
        upstream: the gradients ``[R]`` of the tile's row sums.
        diagonal: as in `sigmoid_sums`.
        out: ``[R, C]``, bfloat16 or float32.
        scale: whether ``sum(W * cosines)`` is wanted.
        bias: whether ``sum(W)`` is.

    Returns:
        ``[parts]`` float32 for each of the two, whose sum is that; or None.
    """
    cosines, theirs = student.cosines, None if teacher is None else teacher.cosines
    tile = pick("sigmoid_weights", cosines, theirs)
    count = programs(tile, *cosines.shape)
    parts = [empty(cosines, count) if wanted else None for wanted in (scale, bias)]
    launch(
        sigmoid_weights_kernel,
        tile,
        cosines.shape,
        *_sides(student, teacher),
        *upstream,
        out,
        out.stride(0),
        *parts,
        *cosines.shape,
        diagonal,
        **dots(cosines, tile),
        **dots(theirs or cosines, tile, "T_"),
    )
    return parts[0], parts[1]


def _sides(student: Logits, teacher: Logits | None) -> list[object]:
    if teacher is None:
        return [*side(student.cosines), *side(None), student.bias, None]
    return [*side(student.cosines), *side(teacher.cosines), student.bias, teacher.bias]
