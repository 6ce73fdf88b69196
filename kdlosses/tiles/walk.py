"""Tiles of logits in plain torch, one after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from kdlosses.relation import Relation
from kdlosses.rows import Rows
from kdlosses.tiles.blocks import Positives, Workspace, blocks
from kdlosses.tiles.program import add_once


class Kept:
    """Tiles of logits by relation and position: filled by the forward pass, read by the backward pass.

    Relations are numbered as they come.
    """

    def __init__(self, relations: list[Relation], tiles: dict[tuple[int, int, int], Tensor]) -> None:
        self.relations, self.tiles = relations, tiles

    def key(self, relation: Relation, rows: slice, cols: slice) -> tuple[int, int, int]:
        """Where this tile is, or goes."""
        add_once(self.relations, relation)
        number = next(i for i, known in enumerate(self.relations) if known is relation)
        return number, rows.start, cols.start

    def room(self, number: int, relation: Relation, rows: slice, cols: slice) -> Tensor | None:
        """Where a tile that is not there yet is to be made; None for memory of its own."""
        return None


class Companions:
    """What walks over the same tiles side by side have in common: scratch memory, and the logits of the moment.

    They go from tile to tile together, so that a relation that is read more than once is computed once.
    """

    def __init__(self, work: Workspace) -> None:
        self.work = work
        self._tiles: list[tuple[Relation, tuple[int, int], Tensor]] = []

    def tile(self, relation: Relation, rows: slice, cols: slice, make: Callable[[], Tensor]) -> Tensor:
        """This tile of ``relation``, which ``make`` makes for the first that asks."""
        at = rows.start, cols.start
        for known, where, tile in self._tiles:
            if known is relation and where == at:
                return tile
        self._tiles = [entry for entry in self._tiles if entry[1] == at]
        self._tiles.append((relation, at, make()))
        return self._tiles[-1][2]


class Walk:
    """One pass over one relation: its blocks of rows and columns, its logits, and the buffers they are made in.

    Args:
        relation: whose tiles they are.
        size: rows and columns of a tile, None for the whole matrix; square, as a transpose reads the same tiles.
        kept: where tiles of logits are kept, or None where every pass computes them again.
        companions: of walks that go side by side with this one.
    """

    def __init__(
        self, relation: Relation, size: int | None, kept: Kept | None, companions: Companions | None = None
    ) -> None:
        self.relation, self.kept = relation, kept
        # What outlives a tile, and what does not.
        self.own = Workspace(relation.queries.values, relation.queries.dtype)
        self._companions = Companions(self.own) if companions is None else companions
        self.work = self._companions.work
        count, others = relation.shape
        self.row_blocks, self.col_blocks = blocks(count, size), blocks(others, size)
        self._slabs: dict[str, tuple[int, Tensor]] = {}

    def tiles(self) -> Iterator[tuple[slice, slice, Positives]]:
        """All tiles, row by row."""
        for rows in self.row_blocks:
            for cols in self.col_blocks:
                yield rows, cols, self.positives(rows, cols)

    def positives(self, rows: slice, cols: slice) -> Positives:
        """Where this tile has its positives, or what is excluded instead."""
        if self.relation.diagonal == "none":
            return Positives.none()
        return Positives.of_tile(rows, cols, self.relation.offset)

    def logits(self, name: str, relation: Relation, rows: slice, cols: slice) -> Tensor:
        """A tile of ``relation``'s matrix, not to be written to; ``name`` says which buffers it may use."""
        if self.kept is None:
            return self._recomputed(name, relation, rows, cols)
        if relation.source is not None:
            return self.logits(name, relation.source, cols, rows).T
        relation = relation.computed
        key, tiles = self.kept.key(relation, rows, cols), self.kept.tiles
        if key not in tiles:
            room = self.kept.room(key[0], relation, rows, cols)
            tiles[key] = self._product(name, relation, rows, cols, room)
        return tiles[key]

    def _recomputed(self, name: str, relation: Relation, rows: slice, cols: slice) -> Tensor:
        def make() -> Tensor:
            return self._product(name, relation, rows, cols, self.own.get(name, *_shape(rows, cols)))

        if relation.source is not None:
            return make()
        return self._companions.tile(relation.computed, rows, cols, make)

    def _product(self, name: str, relation: Relation, rows: slice, cols: slice, out: Tensor | None) -> Tensor:
        tile = torch.mm(self.scaled(name, relation, rows), self.keys(name, relation, cols).T, out=out)
        if relation.diagonal == "excluded":
            Positives.of_tile(rows, cols, relation.offset).exclude(tile)
        return tile

    def scaled(self, name: str, relation: Relation, rows: slice) -> Tensor:
        """Unit queries times the scale."""
        return self._slab(f"{name} scaled", relation.queries, rows, relation.scale)

    def keys(self, name: str, relation: Relation, cols: slice) -> Tensor:
        """Unit keys."""
        return self._slab(f"{name} keys", relation.keys, cols, None)

    def _slab(self, name: str, rows: Rows, block: slice, scale: Tensor | None) -> Tensor:
        # The inner loop meets the same rows for every block of columns.
        if self._slabs.get(name, (-1,))[0] != block.start:
            self._slabs[name] = (block.start, self._made(name, rows, block, scale))
        return self._slabs[name][1]

    def _made(self, name: str, rows: Rows, block: slice, scale: Tensor | None) -> Tensor:
        if scale is None:
            return self.own.unit(name, rows, block)
        return self.own.unit(name, rows, block).mul_(scale)


def _shape(rows: slice, cols: slice) -> tuple[int, int]:
    return rows.stop - rows.start, cols.stop - cols.start
