"""``backend="auto"``: the backend for a call, by device, size and dtype.

1. ``triton`` where it is usable: CUDA, computation in float32 (from any features but float64), at least 2,048 pairs.
2. ``dense`` while the matrices it would keep take at most 1 GiB.
3. ``chunked`` beyond that.

On CPUs dense needs 0.73 to 0.84 of chunked's time for CLIP-KD at every size measured
(``harness/bench/results/losses/cpu.csv``): memory alone decides there, and 1 GiB is CLIP-KD at 8,192 pairs in float32.
The sizes for GPUs are not measured yet.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch

from kdlosses.backends.contract import Backend
from kdlosses.relation import Relation
from kdlosses.requests import Request
from kdlosses.tiles.program import add_once

if TYPE_CHECKING:
    from kdlosses.backends.triton import Backend as TritonBackend

DENSE_BYTES = 2**30
TRITON_ROWS = 2048

_log = logging.getLogger("kdlosses")


class Auto:
    """Chooses for each call and logs each choice once, to the logger ``kdlosses``.

    Args:
        backends: what to choose from, by name; those that cannot run here left out.
    """

    name = "auto"

    def __init__(self, backends: Mapping[str, Backend]) -> None:
        self._backends = dict(backends)
        self._triton = cast("TritonBackend | None", self._backends.get("triton"))
        self._told: set[str] = set()

    @staticmethod
    def unavailable() -> str | None:
        """One of them runs anywhere."""
        return None

    def evaluate(self, requests: Sequence[Request]) -> list[Any]:
        """Answer ``requests`` with the backend that the rule names."""
        name = self.choose(requests)
        # First is_compiling(): what compiled code has not read may change without being compiled again.
        if not torch.compiler.is_compiling() and name not in self._told:
            self._told.add(name)
            rows = requests[0].rows()[0].values
            _log.info("backend auto: %s for %d pairs on %s", name, len(rows), rows.device.type)
        return self._backends[name].evaluate(requests)

    def choose(self, requests: Sequence[Request]) -> str:
        """The name of the backend for ``requests``."""
        if self._triton is not None and self._triton.suits(requests, TRITON_ROWS):
            return "triton"
        return "dense" if _kept_bytes(requests) <= DENSE_BYTES else "chunked"


def _kept_bytes(requests: Sequence[Request]) -> int:
    """What dense would hold between its forward and its backward pass."""
    relations: list[Relation] = []
    for request in requests:
        for relation in request.kept():
            add_once(relations, relation.computed)
    return sum(r.shape[0] * r.shape[1] * r.queries.dtype.itemsize for r in relations)
