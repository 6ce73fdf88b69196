"""FLOPs of a training step, and the machine's FLOP rate on a large matrix product."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise

import torch
from torch.utils.flop_counter import FlopCounterMode, flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from harness.bench.losses.timing import Percentiles, make_clock

# Side of the square product: large enough that a larger one is hardly faster.
SIDE = {"cpu": 1024, "cuda": 8192}
REPEATS = 8


def _attention(query: torch.Size, key: torch.Size, value: torch.Size, *_: object, **__: object) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward(
    gradient: torch.Size, query: torch.Size, key: torch.Size, value: torch.Size, *_: object, **__: object
) -> int:
    return sdpa_backward_flop_count(gradient, query, key, value)


# torch 2.6 counts attention on a CPU as nothing.
_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}


def count_flops(step: Callable[[], object]) -> int:
    """Floating-point operations of one call: matrix products, convolutions and attention, forward and backward.

    Kernels of Triton are not counted: of a step with the triton backend, the loss's own products are missing.
    """
    missing = {operator: formula for operator, formula in _ATTENTION.items() if operator not in flop_registry}
    with _countable(), FlopCounterMode(display=False, custom_mapping=missing) as counter:
        step()
    return counter.get_total_flops()


def matmul_rate(device: str, dtype: torch.dtype, side: int | None = None) -> float:
    """Operations a second of a square matrix product, the median of several."""
    side = side or SIDE[device]
    left, right = (torch.randn(side, side, dtype=dtype, device=device) for _ in range(2))
    out, clock = torch.empty_like(left), make_clock(device)
    torch.mm(left, right, out=out)
    marks = [clock.mark()]
    for _ in range(REPEATS):
        torch.mm(left, right, out=out)
        marks.append(clock.mark())
    times = [clock.between(start, stop) for start, stop in pairwise(marks)]
    return 2 * side**3 / (1e-3 * Percentiles.of(times).median)


@contextmanager
def _countable() -> Iterator[None]:
    """Operators as they are counted: not compiled, and attention not fused with its projections."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.compiler.set_stance("force_eager"):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
