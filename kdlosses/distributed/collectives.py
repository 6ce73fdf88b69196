"""Two of torch's collectives by the name that this torch has for them: 2.14 has new ones, and warns at the old."""

from __future__ import annotations

import torch.distributed as dist
from torch import Tensor

from kdlosses.distributed.shard import Shard


def all_gather(whole: Tensor, own: Tensor, shard: Shard) -> None:
    """Fill ``whole`` with every process's ``own``, in the order of their ranks."""
    name = "all_gather_single" if hasattr(dist, "all_gather_single") else "all_gather_into_tensor"
    getattr(dist, name)(whole, own, group=shard.group)


def reduce_scatter(own: Tensor, whole: Tensor, shard: Shard) -> None:
    """Fill ``own`` with this process's part of the sum of every process's ``whole``."""
    name = "reduce_scatter_single" if hasattr(dist, "reduce_scatter_single") else "reduce_scatter_tensor"
    getattr(dist, name)(own, whole, group=shard.group)
