"""What every backend promises."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from kdlosses.requests import Request


@runtime_checkable
class Backend(Protocol):
    """One folder under ``kdlosses/backends`` exposes a class of this name and form; options are constructor keywords.

    ``evaluate`` answers each request in order (``requests.py`` says with what shape), in the dtype of the computation,
    with float32 accumulation or better. Its answers are differentiable once with respect to the values of all rows, to
    the scales and to the biases, a request's teacher excepted. It keeps no state between calls and makes no host sync.
    """

    name: str

    @staticmethod
    def unavailable() -> str | None:
        """None when usable in this process, else the reason in one sentence."""

    def evaluate(self, requests: Sequence[Request]) -> list[Any]:
        """The answers to ``requests``, in order."""
