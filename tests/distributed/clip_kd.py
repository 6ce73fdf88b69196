"""Jobs with KDClipLoss as CLIP-KD's trainer makes it: on every rank, after a seed of its own."""

from __future__ import annotations

import argparse
from typing import Any

import torch

import kdlosses
from kdlosses.integrations.clip_kd import WEIGHTS, KDClipLoss
from tests.distributed.cases import MIXED, part
from tests.distributed.refusals import message
from tests.distributed.world import Jobs
from tests.running import Outcome, run

ALPHAS = {"crd": 0.5, "icl": 1.5, "cross_kd": 3.0, "fd": 2000.0, "gd": 1e8}


def make(rank: int, size: int, **keywords: Any) -> KDClipLoss:
    torch.manual_seed(rank)
    weights = {name: ALPHAS.get(term, 0.0) for term, name in WEIGHTS.items()}
    args = argparse.Namespace(s_embed_dim=MIXED.student_dim, t_embed_dim=MIXED.teacher_dim, **weights)
    return KDClipLoss(args, gather_with_grad=True, rank=rank, world_size=size, **keywords).double()


class Sum(torch.nn.Module):
    """What the trainer makes of the seven terms, called with open_clip's keywords."""

    def __init__(self, loss: KDClipLoss) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, **inputs: torch.Tensor) -> torch.Tensor:
        return sum(self.loss(**{key.replace("dist_", "t_"): v for key, v in inputs.items() if "bias" not in key}))


def _as_it_is(rank: int, size: int) -> str:
    return message(Sum(make(rank, size)), part(MIXED.inputs(), rank, size))


def _shared(rank: int, size: int) -> Outcome:
    loss = make(rank, size)
    kdlosses.share_parameters(loss)
    return run(Sum(loss), part(MIXED.inputs(), rank, size))


def _other_size(rank: int, size: int) -> str:
    return message(Sum(make(0, 1)), part(MIXED.inputs(), rank, size))


def _within(rank: int, size: int) -> torch.Tensor:
    return Sum(make(0, 1, group=None))(**MIXED.inputs()).detach()


def alone() -> Outcome:
    return run(Sum(make(0, 1)), MIXED.inputs())


JOBS: Jobs = {"as-it-is": _as_it_is, "shared": _shared, "other-size": _other_size, "within": _within}
