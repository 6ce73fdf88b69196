"""open_clip's own SigLIP loss on every rank, beside ours."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from tests.distributed.cases import SAME, part
from tests.problems import Inputs
from tests.running import Outcome, run

OWN = ("image_features", "text_features", "logit_scale", "logit_bias")


class OpenClips(nn.Module):
    """`open_clip.loss.SigLipLoss` of rows that it does not normalise itself."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        super().__init__()
        # Its file alone: the package takes seconds to import, on every rank.
        file = Path(importlib.util.find_spec("open_clip").origin).with_name("loss.py")
        spec = importlib.util.spec_from_file_location("open_clips_losses", file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        self.loss = module.SigLipLoss(rank=rank, world_size=size)

    def forward(self, image_features, text_features, logit_scale, logit_bias):
        unit = (F.normalize(rows, dim=1) for rows in (image_features, text_features))
        return self.loss(*unit, logit_scale, logit_bias)


def inputs() -> Inputs:
    """Of the student alone."""
    return {key: SAME.with_(bias=-1.0).inputs()[key] for key in OWN}


def job(rank: int, size: int) -> Outcome:
    """open_clip's value, the mean of all ranks' as it would be logged, and its gradients on this one."""
    outcome = run(OpenClips(rank, size), part(inputs(), rank, size))
    value = outcome.value / size
    torch.distributed.all_reduce(value)
    return Outcome(value, outcome.grads)
