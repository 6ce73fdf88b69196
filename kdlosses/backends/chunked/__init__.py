"""The chunked backend: logits are made tile by tile, and made again for the backward pass.

Memory: the gradients and a few tiles, whatever the batch; B x D numbers where ``dense`` needs B x B. Any device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from kdlosses.checks import check_width
from kdlosses.requests import Request
from kdlosses.tiles.compiled import evaluate
from kdlosses.tiles.engine import TorchEngine

# Bytes for the tiles of one pass. On CPUs they should stay in the cache; on GPUs they should be worth a kernel launch.
_BUDGET = {"cpu": 24 * 2**20}
_LARGE_BUDGET = 512 * 2**20
_TILES = 6  # buffers of a tile's size that a pass holds at most


class Backend:
    """Streams over square tiles.

    Args:
        chunk_size: rows and columns of a tile; by default as many as a budget in bytes allows (1,024 in float32 on
            CPUs).

    Raises:
        ValueError: for a chunk size that is not a positive integer.
    """

    name = "chunked"

    def __init__(self, chunk_size: int | None = None) -> None:
        check_width("chunk_size", chunk_size)
        self.chunk_size = chunk_size

    @staticmethod
    def unavailable() -> str | None:
        """Plain torch runs wherever torch does."""
        return None

    def evaluate(self, requests: Sequence[Request]) -> list[Any]:
        """Answer ``requests`` in order."""
        rows = requests[0].rows()[0]
        size = self.chunk_size or tile_size(rows.values.device.type, rows.dtype)
        return evaluate(requests, TorchEngine(size, keeps=False))

    def __repr__(self) -> str:
        return f"chunked(chunk_size={self.chunk_size})"


def tile_size(device: str, dtype: torch.dtype) -> int:
    """The side of the largest tile, a multiple of 128, that fits the device's budget."""
    # Multiples of 128 are whole vectors on CPUs and whole tiles of a product on GPUs.
    elements = _BUDGET.get(device, _LARGE_BUDGET) // (_TILES * dtype.itemsize)
    return int(elements**0.5) // 128 * 128
