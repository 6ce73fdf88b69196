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


def rounding_of_gd(scale: float, teacher_scale: float) -> float:
    """What rounding alone makes of GD's gradient where the exact one is 0, in float64.

    A logit, at most c, is rounded by eps * c; that shifts the compared gradients, c / B times a softmax, by up to
    eps * c^2 / B each, and their derivative is c^2 / B again. With identical rows nothing else is left: at B = 2 and
    c = 47 the oracle is 6e-13 from 80-digit arithmetic, ours 1e-11, this bound 1.4e-10.
    """
    return torch.finfo(torch.float64).eps * scale**2 * max(scale, teacher_scale) ** 2 / 8


def assert_close(
    actual: Tensor,
    expected: Tensor | float,
    dtype: torch.dtype | None = None,
    message: str = "",
    floor: float = 0.0,
) -> None:
    """Compare within the table; `dtype` is that of the computation, by default that of `actual`.

    Args:
        actual: what was computed.
        expected: what it should be.
        dtype: see above.
        message: what it is.
        floor: the least absolute difference that is let pass, where rounding makes more than the table allows.
    """
    bounds = TOLERANCE[dtype or actual.dtype]
    torch.testing.assert_close(
        actual.double(),
        torch.as_tensor(expected, dtype=torch.float64),
        rtol=bounds["rtol"],
        atol=max(bounds["atol"], floor),
        msg=(lambda text: f"{message}: {text}") if message else None,
    )
