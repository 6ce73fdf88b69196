"""Where tiles lie, and the memory they are made in."""

from __future__ import annotations

import torch
from torch import Tensor

from kdlosses.rows import Rows


def blocks(count: int, size: int | None) -> list[slice]:
    """Consecutive slices of at most ``size`` that cover ``range(count)``; a single one for None."""
    found: list[slice] = []
    start = 0
    # Comparisons, not range(): a compiler would take a count for a constant there, and compile anew for each.
    while size is not None and count - start > size:
        found.append(slice(start, start + size))
        start += size
    return [*found, slice(start, count)]


class Positives:
    """Where a tile holds positives, if it does: on its ``diagonal``, which belongs to rows ``rows``."""

    def __init__(self, first: int, last: int, offset: int, diagonal: int) -> None:
        self.any = first < last
        self.rows = slice(first, last)
        self.cols = slice(first + offset, last + offset)
        self.diagonal = diagonal

    @classmethod
    def of_tile(cls, rows: slice, cols: slice, offset: int) -> Positives:
        """Those of the tile of ``rows`` and ``cols``; numbers alone go on, as a compiler makes constants of slices."""
        first, last = max(rows.start, cols.start - offset), min(rows.stop, cols.stop - offset)
        return cls(first, last, offset, offset + rows.start - cols.start)

    def of(self, tile: Tensor) -> Tensor:
        """The positives' entries of ``tile``, as a view."""
        return tile.diagonal(self.diagonal)

    def zero(self, tile: Tensor) -> None:
        """Set the positives' entries of ``tile`` to zero."""
        if self.any:
            self.of(tile).zero_()


class Workspace:
    """Buffers by name, used again by every tile of one pass.

    Fresh memory for each tile would cost as much as the arithmetic: every page is faulted in anew. A compiler plans
    memory itself and wants plain functions, so while one traces there are no buffers.
    """

    def __init__(self, like: Tensor, dtype: torch.dtype) -> None:
        self.device, self.dtype = like.device, dtype
        self._buffers: dict[str, Tensor] = {}

    def get(self, name: str, height: int, width: int) -> Tensor | None:
        """A ``[height, width]`` buffer with undefined contents for ``out=``, or None while a compiler traces."""
        if torch.compiler.is_compiling():
            return None
        buffer = self._buffers.get(name)
        if buffer is None or buffer.numel() < height * width:
            buffer = torch.empty(height * width, dtype=self.dtype, device=self.device)
            self._buffers[name] = buffer
        return buffer[: height * width].view(height, width)

    def unit(self, name: str, rows: Rows, block: slice) -> Tensor:
        """Unit rows of one block, in the dtype of the computation."""
        values, factors = rows.values[block], rows.inverse_norms[block, None]
        return torch.mul(values, factors, out=self.get(name, *values.shape))
