"""The triton backend: fused kernels on the tensor cores of NVIDIA GPUs (compute capability 8.0 or newer).

Logits live in registers: forward, one kernel turns each tile of them into partial softmax statistics of its rows and
columns; backward, another writes a tile of the derivative, which two matrix products consume. Memory: the gradients and
one such tile, whatever the batch. Softmaxes that leave a diagonal out or have no positives, and reverse KLs, are
computed by the tiles of the chunked backend, on the same device.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from typing import Any

import torch

from kdlosses.checks import check_known, check_width
from kdlosses.requests import Request

PRECISIONS = ("ieee", "tf32")
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class Backend:
    """Runs the kernels; with ``TRITON_INTERPRET=1`` in the environment, on CPUs too, slowly, for tests.

    Features of one 16-bit dtype are multiplied as they are, with float32 accumulation, others in float32. Tiles of the
    derivative are stored in bfloat16 where both sides are bfloat16, else in float32. A request that there are no
    kernels for is answered by torch's operations, as by the other backends (`kdlosses.requests.Request.solve`).

    Args:
        precision: of float32 products: ``"ieee"``, or ``"tf32"`` for tensor cores, whose operands keep 11 bits.
        tile_size: rows and columns of the largest tile of the derivative that is stored.

    Raises:
        ValueError: for an unknown precision or a tile size that is not a positive integer.
    """

    name = "triton"

    def __init__(self, precision: str = "ieee", tile_size: int = 8192) -> None:
        check_known("precision", precision, PRECISIONS)
        check_width("tile_size", tile_size)
        self.precision, self.tile_size = precision, tile_size

    @staticmethod
    def unavailable() -> str | None:
        """None, or that triton or a device for it is missing; does not import triton."""
        if importlib.util.find_spec("triton") is None:
            return "the package triton is not installed; PyTorch's CUDA wheels for Linux bring it"
        if _interpreting():
            return None if importlib.util.find_spec("numpy") else "triton's interpreter needs numpy: pip install numpy"
        if torch.version.hip is not None:  # it answers to torch.cuda, with capabilities that mean other machines
            return "this PyTorch is built for ROCm; the kernels' tiles are chosen for NVIDIA GPUs"
        if not torch.cuda.is_available():
            return "there is no CUDA device (TRITON_INTERPRET=1 in the environment runs the kernels on CPUs, for tests)"
        major, minor = torch.cuda.get_device_capability()
        if major < 8:
            return f"the CUDA device has compute capability {major}.{minor}; 8.0 or newer is needed"
        return None

    def suits(self, requests: Sequence[Request], rows: int) -> bool:
        """Whether all of ``requests`` are on a GPU, in float32 or narrower, and one of them has that many rows."""
        found = [one for request in requests for one in request.rows()]
        return max(len(one.values) for one in found) >= rows and all(
            one.values.is_cuda and one.dtype == torch.float32 for one in found
        )

    def evaluate(self, requests: Sequence[Request]) -> list[Any]:
        """Answer ``requests`` in order.

        Raises:
            ValueError: for float64, or for tensors that the kernels cannot reach.
        """
        for request in requests:
            for rows in request.rows():
                _check(rows.values, rows.dtype)
        from kdlosses.backends.triton.engine import evaluate  # here, as it imports triton

        answers: list[Any] = evaluate(requests, self.precision, self.tile_size)
        return answers

    def __repr__(self) -> str:
        return f"triton(precision={self.precision!r}, tile_size={self.tile_size})"


def _interpreting() -> bool:
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes", "y")


def _check(values: torch.Tensor, dtype: torch.dtype) -> None:
    if dtype != torch.float32 or values.dtype not in _DTYPES:
        raise ValueError(
            f"backend='triton' computes in float32 from float32, bfloat16 or float16 features, got {values.dtype} "
            f"for a computation in {dtype}; backend='chunked' takes any"
        )
    if not values.is_cuda and not _interpreting():
        raise ValueError(
            f"backend='triton' needs features on a CUDA device, got {values.device}; "
            "move them there or use backend='chunked'"
        )
