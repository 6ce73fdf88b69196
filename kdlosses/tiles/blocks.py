"""Where tiles lie, and the memory they are made in."""

from __future__ import annotations

import torch
from torch import Tensor

from kdlosses.relation import no_logit
from kdlosses.rows import Rows


def blocks(count: int, size: int | None) -> list[slice]:
    """Consecutive slices of at most ``size`` that cover ``range(count)``; a single one for None."""
    if size is None:
        return [slice(0, count)]
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


class Positives:
    """Where a tile holds positives, if it does: on its ``diagonal``, which belongs to rows ``rows``."""

    def __init__(self, first: int, last: int, offset: int, diagonal: int) -> None:
        self.any = first < last
        self.rows = slice(first, last)
        self.cols = slice(first + offset, last + offset)
        self.diagonal = diagonal

    @classmethod
    def of_tile(cls, rows: slice, cols: slice, offset: int) -> Positives:
        """Those of the tile of ``rows`` and ``cols``."""
        first, last = max(rows.start, cols.start - offset), min(rows.stop, cols.stop - offset)
        return cls(first, last, offset, offset + rows.start - cols.start)

    @classmethod
    def none(cls) -> Positives:
        """Those of a tile that has none."""
        return cls(0, 0, 0, 0)

    def of(self, tile: Tensor) -> Tensor:
        """The positives' entries of ``tile``, as a view."""
        return tile.diagonal(self.diagonal)

    def zero(self, tile: Tensor) -> None:
        """Set the positives' entries of ``tile`` to zero."""
        if self.any:
            self.of(tile).zero_()

    def exclude(self, tile: Tensor) -> None:
        """Make the positives' logits so low that no softmax has them, and no maximum is theirs."""
        if self.any:
            self.of(tile).fill_(no_logit(tile.dtype))


class Workspace:
    """Buffers by name, used again by every tile of one pass.

    Fresh memory for each tile would cost as much as the arithmetic: every page is faulted in anew.
    """

    def __init__(self, like: Tensor, dtype: torch.dtype) -> None:
        self.device, self.dtype = like.device, dtype
        self._buffers: dict[str, Tensor] = {}

    def get(self, name: str, height: int, width: int) -> Tensor:
        """A ``[height, width]`` buffer with undefined contents for ``out=``."""
        buffer = self._buffers.get(name)
        if buffer is None or buffer.numel() < height * width:
            buffer = torch.empty(height * width, dtype=self.dtype, device=self.device)
            self._buffers[name] = buffer
        return buffer[: height * width].view(height, width)

    def unit(self, name: str, rows: Rows, block: slice) -> Tensor:
        """Unit rows of one block, in the dtype of the computation."""
        values, factors = rows.values[block], rows.inverse_norms[block, None]
        return torch.mul(values, factors, out=self.get(name, *values.shape))
