"""Distributed context of a run: rank, world size, and what ranks exchange outside the losses."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import torch
import torch.distributed as dist

from harness.errors import Terminated, UserError
from harness.models import pick_device
from harness.orphans import end_with_torchrun


class Signal(IntEnum):
    """State of a rank that all agree on before each step; the largest wins."""

    GO = 0
    STOP = 1  # take this step, save, leave
    FAILED = 2  # this process cannot go on


@dataclass(frozen=True)
class DistributedContext:
    """Rank, local rank and world size of this process, as torchrun sets them.

    Args:
        rank: number of this process.
        local_rank: its number on this machine, which picks its GPU.
        world_size: how many there are.
    """

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1

    @property
    def is_rank_zero(self) -> bool:
        """Whether this rank writes what is written once."""
        return self.rank == 0

    def reduce_max(self, signal: Signal) -> Signal:
        """The largest of all ranks' signals. It travels between CPUs, so no GPU is waited for."""
        if self.world_size == 1:
            return signal
        largest = torch.tensor(int(signal))
        dist.all_reduce(largest, op=dist.ReduceOp.MAX)
        return Signal(int(largest))

    def gather_object(self, value: Any) -> list[Any] | None:
        """Every rank's value on rank 0, in order; None on the others."""
        if self.world_size == 1:
            return [value]
        found: list[Any] | None = [None] * self.world_size if self.is_rank_zero else None
        dist.gather_object(value, found)
        return found

    def broadcast_object(self, value: Any) -> Any:
        """Rank 0's value, on every rank."""
        if self.world_size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box)
        return box[0]

    def lost_peer(self, error: Exception) -> UserError | None:
        """The error for a user where the reason is that another process has ended; None for another reason."""
        if self.world_size == 1 or "gloo/transport" not in str(error):
            return None
        return UserError(
            f"{self} stops because a process that it waited for has ended; that one's message, or the system's log if "
            "it was killed, says why"
        )

    def __str__(self) -> str:
        return f"rank {self.rank} of {self.world_size} on {socket.gethostname()}"


@contextmanager
def init_distributed(device: str) -> Iterator[tuple[DistributedContext, torch.device]]:
    """Initialize the process group that torchrun asks for, if any, and destroy it at the end.

    Args:
        device: the recipe's ``train.device``.

    Raises:
        UserError: no such device, or fewer GPUs than processes on this machine.
    """
    distributed = _from_environment()
    end_with_torchrun()
    chosen = pick_device(device, distributed.local_rank)
    if distributed.world_size == 1 or dist.is_initialized():
        yield distributed, chosen
        return
    # Both: tensors on GPUs go through NCCL, and words between CPUs through gloo without a GPU's waiting.
    dist.init_process_group("cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo")
    # After an error the group is left to the end of the process: closing it may wait for those that still wait for us.
    try:
        yield distributed, chosen
    except Terminated:
        dist.destroy_process_group()
        raise
    dist.destroy_process_group()


def _from_environment() -> DistributedContext:
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
    given = {name: os.environ[name] for name in names if name in os.environ}
    if "WORLD_SIZE" not in given:
        return DistributedContext()
    if len(given) < len(names):
        missing = ", ".join(name for name in names if name not in given)
        raise UserError(f"WORLD_SIZE is set but {missing} not; start several processes with torchrun, which sets all")
    return DistributedContext(int(given["RANK"]), int(given["LOCAL_RANK"]), int(given["WORLD_SIZE"]))
