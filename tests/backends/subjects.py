"""The backends under test: every one that kdlosses knows, found by name, and engines that only large sizes reach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch

import kdlosses
from kdlosses import backends
from kdlosses.backends.contract import Backend
from kdlosses.requests import Request
from kdlosses.tiles.compiled import evaluate
from kdlosses.tiles.engine import TorchEngine
from tests.grid import tiers
from tests.problems import Inputs, Problem


@dataclass(frozen=True)
class KeepsTiles:
    """Dense as it is where there are more pairs than a tile of `size` has rows, and, with None, on a GPU."""

    size: int | None
    name = "dense"

    @staticmethod
    def unavailable() -> str | None:
        return None

    def evaluate(self, requests: Sequence[Request]) -> list[Any]:
        return evaluate(requests, TorchEngine(self.size, keeps=torch.is_grad_enabled()))


@dataclass(frozen=True)
class Subject:
    """A backend and where it is tested: the device and the widest dtype that it takes."""

    backend: Backend
    device: str
    dtype: torch.dtype

    def place(self, inputs: Inputs) -> Inputs:
        return {key: value.to(self.device, self.dtype) for key, value in inputs.items()}


VARIATIONS: dict[str, Backend] = {
    "chunked-2": backends.create("chunked", chunk_size=2),
    "dense-tiled": KeepsTiles(2),
}
# Without the definitions, which have a test of their own.
KNOWN = {name: reason for name, reason in backends.available().items() if name != "reference"}
LABELS = [*KNOWN, *VARIATIONS]
USABLE = [label for label in LABELS if KNOWN.get(label) is None]


@cache
def subject(label: str) -> Subject:
    """The backend called `label` on the first device, in the widest dtype, that it does not refuse."""
    backend = VARIATIONS[label] if label in VARIATIONS else backends.create(label)
    refusals = []
    for device in ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]:
        for dtype in (torch.float64, torch.float32):
            found = Subject(backend, device, dtype)
            try:
                kdlosses.build("clip_kd", backend=backend)(**found.place(Problem().inputs()))
            except ValueError as refusal:
                refusals.append(str(refusal))
            else:
                return found
    raise AssertionError(f"{label} is said to be usable and refuses everything: {refusals}")


each_backend = pytest.mark.parametrize("label", USABLE)
# Those made of torch operators alone: what watches or replaces operators sees all that they do.
OF_TORCH = [label for label in USABLE if label != "triton"]
# The interpreter of kernels takes a second where the others take milliseconds.


def on_triton(label: str, **_: object) -> bool:
    """Whether a combination of a grid is slow for that."""
    return label == "triton"


each_backend_triton_slow = pytest.mark.parametrize("label", tiers(USABLE, OF_TORCH))
