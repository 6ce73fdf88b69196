"""Floating-point operations of one forward pass, counted by torch.utils.flop_counter.

A multiply-add counts as two. Counted are matrix products, convolutions and attention; norms, activations, softmax,
pooling and look-ups are not, as is usual.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def count_flops(forward: Callable[[], Any]) -> int:
    """The FLOPs of calling ``forward``, attention included."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), _attention_in_parts(), counter:
        forward()
    return counter.get_total_flops()


@contextmanager
def _attention_in_parts() -> Iterator[None]:
    """Attention as plain matrix products: the counter knows nothing of a fused nn.MultiheadAttention in eval mode, and
    of fused kernels only those of some devices."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
