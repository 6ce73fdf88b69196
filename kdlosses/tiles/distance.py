"""Unit rows block by block: squared distances, and the way back through the normalisation."""

from __future__ import annotations

import torch
from torch import Tensor

from kdlosses.requests import SquaredDistance
from kdlosses.rows import Rows
from kdlosses.tiles.blocks import Workspace, blocks

_BLOCK = 2**19  # elements: two MiB in float32, so that a block's few temporaries stay in a CPU's cache


def squared(request: SquaredDistance) -> Tensor:
    """``[N]``: the squared distances between matching unit rows."""
    student, teacher = request.student, request.teacher
    found = torch.empty_like(student.inverse_norms)
    for block, work in _blocks(student):
        found[block] = _difference(work, student, teacher, block).square_().sum(1)
    return found


def add_gradient(request: SquaredDistance, upstream: Tensor, total: Tensor | None) -> None:
    """Add the gradient with respect to the student's unit rows to ``total``."""
    if total is None:
        return
    for block, work in _blocks(request.student):
        difference = _difference(work, request.student, request.teacher, block)
        total[block].add_(difference.mul_(2 * upstream[block, None]))


def to_values(rows: Rows, total: Tensor) -> Tensor:
    """A gradient with respect to unit rows turned, in place, into one with respect to ``rows.values``, in their dtype.

    A unit row cannot grow, so the part along it falls away; what is left shrinks by the norm.
    """
    for block, work in _blocks(rows):
        unit, part = work.unit("unit", rows, block), total[block]
        along = torch.mul(unit, part, out=work.get("along", *unit.shape)).sum(1, keepdim=True)
        part.sub_(unit.mul_(along)).mul_(rows.inverse_norms[block, None])
    return total.to(rows.values.dtype)


def _blocks(rows: Rows) -> list[tuple[slice, Workspace]]:
    count, width = rows.values.shape
    work = Workspace(rows.values, rows.dtype)
    height = count if rows.values.device.type != "cpu" else max(1, _BLOCK // width)
    return [(block, work) for block in blocks(count, height)]


def _difference(work: Workspace, student: Rows, teacher: Rows, block: slice) -> Tensor:
    return work.unit("student", student, block).sub_(work.unit("teacher", teacher, block))
