"""Which processes share a batch, and this one's place among them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


@dataclass(frozen=True)
class Shard:
    """One process of ``size``; with n rows in each it holds rows ``rank * n`` to ``(rank + 1) * n`` of all."""

    group: ProcessGroup
    rank: int
    size: int

    def device(self) -> torch.device:
        """Where small numbers are exchanged: the CPU where the group reaches it, which waits for no kernel."""
        backends = dict(pair.split(":") for pair in dist.get_backend_config(self.group).split(","))
        if "cpu" in backends:
            return torch.device("cpu")
        kind = next(iter(backends))
        return torch.device(kind, torch.get_device_module(kind).current_device())


def check_group(group: object) -> None:
    """Raise ValueError unless ``group`` is "auto", None or a group that this process belongs to."""
    if group is None or (isinstance(group, str) and group == "auto"):
        return
    if not (dist.is_available() and isinstance(group, dist.ProcessGroup)):
        raise ValueError(
            f'group must be "auto", None or a torch.distributed.ProcessGroup with this process in it, got {group!r}'
        )


def alone(group: str | ProcessGroup | None) -> bool:
    """Whether a loss called now with this ``group`` computes by itself."""
    if isinstance(group, str):
        # Constants to a compiler: without other processes a loss stays one graph.
        return not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1
    return group is None


def place(group: str | ProcessGroup | None) -> Shard:
    """This process's place in ``group``, or in the default group for ``"auto"``; not for a loss that is `alone`."""
    chosen = dist.group.WORLD if isinstance(group, str) else group
    assert chosen is not None, "a loss that is alone has no place among others"
    return Shard(chosen, dist.get_rank(chosen), dist.get_world_size(chosen))
