"""What every backend promises."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from kdlosses.requests import Request


class Backend(Protocol):
    """One folder under ``kdlosses/backends`` exposing these two names.

    ``evaluate`` answers each request in order (``requests.py`` says with what shape), in the dtype of the relation's
    embeddings, with float32 accumulation or better. Its answers are differentiable once with respect to queries, keys
    and scale of every relation that requires a gradient. It keeps no state between calls and makes no host sync.
    """

    def unavailable(self) -> str | None:
        """None when usable in this process, else the reason in one sentence."""

    def evaluate(self, requests: Sequence[Request]) -> list[Any]:
        """The answers to ``requests``, in order."""
