"""The dense backend: all logits of a call are kept between the forward and the backward pass.

The fastest in plain torch while its matrices fit. Memory: one N x M matrix for each relation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from kdlosses.requests import Request
from kdlosses.tiles.compiled import evaluate
from kdlosses.tiles.engine import TorchEngine

# A CPU works on tiles that stay in its cache: several passes over a whole matrix would each fetch it from memory.
_CPU_TILE = 1024


class Backend:
    """Keeps the tiles of every relation; takes no options."""

    name = "dense"

    @staticmethod
    def unavailable() -> str | None:
        """Plain torch runs wherever torch does."""
        return None

    def evaluate(self, requests: Sequence[Request]) -> list[Any]:
        """Answer ``requests`` in order; a relation named twice is computed once."""
        tiled = requests[0].rows()[0].values.device.type == "cpu"
        # Without a gradient there is no backward pass to keep anything for.
        return evaluate(requests, TorchEngine(_CPU_TILE if tiled else None, keeps=torch.is_grad_enabled()))
