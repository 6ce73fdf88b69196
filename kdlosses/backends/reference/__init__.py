"""The reference backend: every request by its definition in ``kdlosses.requests``, in plain torch.

The executable specification: what one reads to know what a loss is, and what the others are held against.
Differentiable as often as one likes, so for gradient penalties and ``torch.func``. Memory: several N x M matrices for
each request.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kdlosses.requests import Request


class Backend:
    """Answers each request by itself; takes no options."""

    name = "reference"

    @staticmethod
    def unavailable() -> str | None:
        """Plain torch runs wherever torch does."""
        return None

    def evaluate(self, requests: Sequence[Request]) -> list[Any]:
        """Answer ``requests`` in order."""
        return [request.answer() for request in requests]
