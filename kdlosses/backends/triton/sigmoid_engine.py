"""Binary cross-entropies of sigmoids on Triton's kernels (see ``tiles.sigmoid`` for the formulas)."""

from __future__ import annotations

import torch
from torch import Tensor

from kdlosses.backends.triton import launch, sigmoid_launch
from kdlosses.backends.triton.operands import cosines_of
from kdlosses.backends.triton.sigmoid_launch import Logits
from kdlosses.backends.triton.tiles import Storage, tiles
from kdlosses.tiles.products import Sums
from kdlosses.tiles.program import SigmoidJob
from kdlosses.tiles.sigmoid import ByTarget


def sigmoid_sums(job: SigmoidJob, precision: str, size: int) -> ByTarget:
    """The row sums against the targets that ``job`` has; no tile is stored."""
    student, teacher = _logits(job, precision)
    sums = ByTarget(*(_zeros(student) if asked else None for asked in (job.labels, teacher is not None)))
    for rows, cols, diagonal in tiles(job.relation, size):
        theirs = None if teacher is None else teacher.tile(rows, cols)
        found = sigmoid_launch.sigmoid_sums(student.tile(rows, cols), theirs, diagonal, labels=job.labels)
        for total, parts in zip(sums, found, strict=True):
            if total is not None and parts is not None:
                total[rows] += parts.sum(0)
    return sums


def add_sigmoid_products(job: SigmoidJob, upstream: ByTarget, sums: Sums, precision: str, size: int) -> None:
    """Add what the gradients ``upstream`` of the row sums come to to ``sums``; a tile of W is stored at a time."""
    student, teacher = _logits(job, precision)
    teacher = None if upstream.taught is None else teacher
    # A mean's gradient repeats one number with stride 0; the kernels read vectors.
    upstream = ByTarget(*(None if one is None else one.contiguous() for one in upstream))
    storage = Storage(student.cosines, size, student.cosines.storage)
    for rows, cols, diagonal in tiles(job.relation, size):
        part, tile = student.tile(rows, cols), storage.tile(rows, cols)
        found = sigmoid_launch.sigmoid_weights(
            part,
            None if teacher is None else teacher.tile(rows, cols),
            ByTarget(*(None if one is None else one[rows] for one in upstream)),
            diagonal,
            tile,
            scale=sums.scale is not None,
            bias=sums.bias is not None,
        )
        for total, parts in zip((sums.scale, sums.bias), found, strict=True):
            if total is not None and parts is not None:
                total.add_(parts.sum())
        cosines = part.cosines
        if sums.queries is not None:
            launch.add_product(tile, cosines.keys, cosines.query_factors, sums.queries[rows], cosines.precision)
        if sums.keys is not None:
            launch.add_product(tile.T, cosines.queries, cosines.key_factors, sums.keys[cols], cosines.precision)


def _logits(job: SigmoidJob, precision: str) -> tuple[Logits, Logits | None]:
    student = Logits(cosines_of(job.relation, precision), job.bias)
    if job.teacher is None or job.teacher_bias is None:
        return student, None
    return student, Logits(cosines_of(job.teacher, precision), job.teacher_bias)


def _zeros(student: Logits) -> Tensor:
    return torch.zeros_like(student.cosines.query_factors)
