"""Jobs with a bank: queues that all processes fill alike, keys by number, and keys that differ."""

from __future__ import annotations

from typing import Any

import torch

import kdlosses
from tests.distributed.cases import MIXED, part
from tests.distributed.refusals import message
from tests.distributed.world import Jobs
from tests.running import Outcome, build, run

STEPS, QUEUE = 4, 20  # of eight rows: the queue is full in the third, and goes around in the next
BACKENDS = {"dense": "dense", "chunked": kdlosses.backends.create("chunked", chunk_size=3)}
TARGETS = torch.tensor([[0, -1], [1, 2], [4, 4], [3, 0], [-1, 1], [2, 2], [0, 4], [-1, -1]])


def queue(rank: int, size: int, backend: str = "dense") -> tuple[list[Outcome], dict[str, torch.Tensor]]:
    """Each step's outcome, and the state in the end."""
    loss = build("bank", MIXED, queue_size=QUEUE, backend=BACKENDS[backend])
    outcomes = [run(loss, part(MIXED.with_(seed=step).inputs(), rank, size)) for step in range(STEPS)]
    return outcomes, loss.state_dict()


def by_number(rank: int, size: int) -> Outcome:
    """A call with targets of this process's rows."""
    loss = build("bank", MIXED, num_keys=5, targets="index")
    loss.set_keys(torch.randn(5, MIXED.teacher_dim, generator=torch.Generator().manual_seed(3)))
    return run(_Numbered(loss, TARGETS.chunk(size)[rank]), part(MIXED.inputs(), rank, size))


class _Numbered(torch.nn.Module):
    def __init__(self, loss: torch.nn.Module, targets: torch.Tensor) -> None:
        super().__init__()
        self.loss, self.targets = loss, targets

    def forward(self, **inputs: Any) -> Any:
        return self.loss(**inputs, bank_targets=self.targets)


def _different(rank: int, size: int) -> str:
    loss = build("bank", MIXED, num_keys=5)
    loss.set_keys(torch.full((5, MIXED.teacher_dim), 1.0 + rank))
    return message(loss, part(MIXED.inputs(), rank, size))


def _modes(rank: int, size: int) -> str:
    return message(build("bank", MIXED, queue_size=5).train(rank == 0), part(MIXED.inputs(), rank, size))


def _shared(rank: int, size: int) -> torch.Tensor:
    """What rank 1 has after `share_parameters`."""
    loss = build("bank", MIXED, num_keys=5)
    loss.set_keys(torch.full((5, MIXED.teacher_dim), 1.0 + rank))
    kdlosses.share_parameters(loss)
    return loss.bank.text_keys


JOBS: Jobs = {
    "bank-queue": queue,
    "bank-queue-chunked": lambda rank, size: queue(rank, size, "chunked"),
    "bank-by-number": by_number,
    "bank-different": _different,
    "bank-modes": _modes,
    "bank-shared": _shared,
}
