"""Kept tiles of a relation in one tensor, however many there are: an operator's outputs have a fixed number."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from kdlosses.relation import Relation
from kdlosses.tiles.blocks import blocks
from kdlosses.tiles.program import Job, Program, SigmoidJob, add_once
from kdlosses.tiles.walk import Kept


class Packed(Kept):
    """Tiles, each contiguous, one after another in ``matrices``, of which each relation has one ``[N * M]``."""

    def __init__(self) -> None:
        super().__init__([], {})
        self.matrices: list[Tensor] = []

    @classmethod
    def of(cls, relations: Sequence[Relation], matrices: Sequence[Tensor | None], size: int | None) -> Packed:
        """What the forward pass kept of ``relations``; None for what nobody reads any more."""
        packed = cls()
        packed.relations = list(relations)
        for number, (relation, matrix) in enumerate(zip(relations, matrices, strict=True)):
            if matrix is None:
                continue
            for rows in blocks(relation.shape[0], size):
                for cols in blocks(relation.shape[1], size):
                    packed.tiles[number, rows.start, cols.start] = _tile(matrix, relation, rows, cols)
        return packed

    def room(self, number: int, relation: Relation, rows: slice, cols: slice) -> Tensor:
        """A tile's part of its relation's tensor, which its first tile makes."""
        if number == len(self.matrices):
            count, others = relation.shape
            self.matrices.append(relation.queries.inverse_norms.new_empty(count * others))
        return _tile(self.matrices[number], relation, rows, cols)


def _tile(matrix: Tensor, relation: Relation, rows: slice, cols: slice) -> Tensor:
    height, width = rows.stop - rows.start, cols.stop - cols.start
    start = rows.start * relation.shape[1] + height * cols.start
    return matrix[start : start + height * width].view(height, width)


def kept_relations(program: Program) -> list[Relation]:
    """Those whose tiles a forward pass keeps, in the order in which it meets them."""
    found: list[Relation] = []
    jobs: list[Job | SigmoidJob] = [*program.jobs, *program.sigmoid_jobs]
    for job in jobs:
        for relation in (job.relation, job.teacher):
            if relation is not None:
                add_once(found, relation.computed)
    return found
