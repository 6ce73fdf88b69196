"""The one table of tolerances, by the dtype a value was computed from."""

from __future__ import annotations

import torch
from torch import Tensor

# Half-precision inputs are widened before any arithmetic, so their *values* are held to the float32 row;
# only gradients, which are rounded to the input's dtype on the way out, use the half rows.
TOLERANCE: dict[torch.dtype, dict[str, float]] = {
    torch.float64: {"rtol": 1e-9, "atol": 1e-11},
    torch.float32: {"rtol": 1e-4, "atol": 2e-5},
    torch.float16: {"rtol": 2e-3, "atol": 1e-4},
    torch.bfloat16: {"rtol": 1e-2, "atol": 1e-4},
}


def assert_close(actual: Tensor, expected: Tensor | float, dtype: torch.dtype | None = None, message: str = "") -> None:
    """Compare within the table; `dtype` is that of the computation, by default that of `actual`."""
    torch.testing.assert_close(
        actual.double(),
        torch.as_tensor(expected, dtype=torch.float64),
        **TOLERANCE[dtype or actual.dtype],
        msg=(lambda text: f"{message}: {text}") if message else None,
    )
