"""Gradient clipping by global norm, for sharded parameters too."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


def clip_gradients(parameters: Sequence[nn.Parameter], limit: float) -> Tensor:
    """Scale all gradients so that their global norm is at most ``limit``; returns the norm before, 0-d."""
    sharded = [p for p in parameters if isinstance(p, DTensor)]
    if not sharded:
        return nn.utils.clip_grad_norm_(parameters, limit)
    # Torch sums norms of one kind of tensor at a time.
    kinds = (sharded, [p for p in parameters if not isinstance(p, DTensor)])
    norms = [nn.utils.get_total_norm([p.grad for p in kind if p.grad is not None]) for kind in kinds if kind]
    whole = [norm.full_tensor() if isinstance(norm, DTensor) else norm for norm in norms]
    total: Tensor = torch.linalg.vector_norm(torch.stack(whole))
    for kind in kinds:
        nn.utils.clip_grads_with_norm_(kind, limit, total)
    return total
