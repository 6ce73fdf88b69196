"""AdamW with the paper's parameter groups, and the learning rate over time."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import nn

from harness.config import OptimConfig, ScheduleConfig


def build_optimizer(
    named: list[tuple[str, nn.Parameter]], config: OptimConfig, student: str, fused: bool = False
) -> torch.optim.AdamW:
    """AdamW over four groups: the student's and the loss's parameters, each with and without weight decay.

    Biases, norms and scales have fewer than two dimensions and get no decay.

    Args:
        named: parameters by name; the loss's own begin with ``loss.``.
        config: the recipe's ``optim`` section.
        student: the student model's name; the paper's betas and epsilon depend on whether it contains "vit".
        fused: one kernel for all parameters; on CUDA it can also skip a step without the CPU's knowing.
    """
    groups = []
    for own in (False, True):
        lr = (config.loss_lr or config.lr) if own else config.lr
        decay = config.loss_weight_decay if own else config.weight_decay
        for matrices in (True, False):
            params = [p for name, p in named if name.startswith("loss.") == own and (p.ndim >= 2) == matrices]
            if params:
                groups.append({"params": params, "lr": lr, "weight_decay": decay if matrices else 0.0})
    vit = "vit" in student.lower()
    betas = config.betas or ((0.9, 0.98) if vit else (0.9, 0.999))
    eps = config.eps or (1e-6 if vit else 1e-8)
    return torch.optim.AdamW(groups, betas=betas, eps=eps, fused=fused or None)


def build_schedule(
    optimizer: torch.optim.Optimizer, config: ScheduleConfig, steps: int
) -> torch.optim.lr_scheduler.LambdaLR:
    """Linear warm-up from 1 / warmup_steps of the peak, then constant, or a cosine to ``min_lr`` after ``steps``."""

    def factor(step: int, floor: float) -> float:
        if step < config.warmup_steps:
            return (step + 1) / config.warmup_steps
        if config.kind == "constant":
            return 1.0
        progress = (step - config.warmup_steps) / max(1, steps - config.warmup_steps)
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))

    # Each group has its own peak, and ``min_lr`` is the same rate for all of them.
    floors = [config.min_lr / group["lr"] for group in optimizer.param_groups]
    return torch.optim.lr_scheduler.LambdaLR(optimizer, [partial(factor, floor=floor) for floor in floors])
