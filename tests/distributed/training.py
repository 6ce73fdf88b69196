"""Jobs that train: a student of two linear towers and a loss with parameters of its own, a few steps of SGD."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import kdlosses
from tests.distributed.cases import MIXED, part
from tests.distributed.world import Jobs
from tests.problems import seeded
from tests.running import build

STEPS = 3
_TEACHER = ("dist_image_features", "dist_text_features", "dist_logit_scale")

Parameters = dict[str, Tensor]


class Task(nn.Module):
    """Student and loss as one module, as a trainer has them."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        generator = seeded(3)
        self.image, self.text = (
            nn.Parameter(torch.randn(5, 4, generator=generator, dtype=torch.float64)) for _ in range(2)
        )
        self.log_scale = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))
        self.loss = loss

    def forward(self, images: Tensor, texts: Tensor, **teacher: Tensor) -> Tensor:
        return self.loss(images @ self.image, texts @ self.text, self.log_scale.exp(), **teacher)


def batch(step: int) -> dict[str, Tensor]:
    """Inputs of the whole batch of one step."""
    made, generator = MIXED.with_(seed=step).inputs(), seeded(step)
    images, texts = (torch.randn(MIXED.batch, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    return {"images": images, "texts": texts} | {key: made[key] for key in _TEACHER}


def loss() -> nn.Module:
    weights = {"contrastive": 1.0, "crd": 1.0, "fd": 20.0, "icl": 1.0, "gd": 100.0, "afd": 1.0}
    return build("clip_kd", MIXED, weights=weights)


def train(task: nn.Module, optimizer: torch.optim.Optimizer, batches: list[list[dict[str, Tensor]]]) -> None:
    """One optimizer step for each list of batches, whose gradients add up."""
    for several in batches:
        optimizer.zero_grad()
        for one in several:
            task(**one).backward()
        optimizer.step()


def alone() -> Parameters:
    """What one process makes of the whole batches, two to a step."""
    task = Task(loss())
    train(task, sgd(task), [[batch(2 * step), batch(2 * step + 1)] for step in range(STEPS)])
    return {name: p.detach() for name, p in task.named_parameters()}


def sgd(task: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(task.parameters(), lr=0.02, momentum=0.9)


def _parts(rank: int, size: int) -> list[list[dict[str, Tensor]]]:
    return [[part(batch(2 * step + i), rank, size) for i in range(2)] for step in range(STEPS)]


def _in_ddp(rank: int, size: int) -> Parameters:
    """Student and loss in one DDP; the second ranks' loss parameters start elsewhere, DDP brings them together."""
    task = Task(loss())
    _disturb(task.loss, rank)
    wrapped = DistributedDataParallel(task)
    train(wrapped, sgd(task), _parts(rank, size))
    return {name: p.detach() for name, p in task.named_parameters()}


def _shared(rank: int, size: int) -> Parameters:
    """The student in DDP, the loss outside."""
    task = Task(loss())
    _disturb(task.loss, rank)
    student = DistributedDataParallel(_Student(task))
    kdlosses.share_parameters(task.loss)

    def call(**inputs: Tensor) -> Tensor:
        teacher = {key: inputs.pop(key) for key in _TEACHER}
        return task.loss(*student(**inputs), **teacher)

    train(call, sgd(task), _parts(rank, size))  # type: ignore[arg-type]
    return {name: p.detach() for name, p in task.named_parameters()}


class _Student(nn.Module):
    def __init__(self, task: Task) -> None:
        super().__init__()
        self.image, self.text, self.log_scale = task.image, task.text, task.log_scale

    def forward(self, images: Tensor, texts: Tensor) -> Any:
        return images @ self.image, texts @ self.text, self.log_scale.exp()


@torch.no_grad()
def _disturb(module: nn.Module, rank: int) -> None:
    for parameter in module.parameters():
        parameter.add_(0.3 * rank)


JOBS: Jobs = {"in-ddp": _in_ddp, "shared": _shared}
