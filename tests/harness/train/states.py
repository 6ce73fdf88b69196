"""A training state as small as its schema allows."""

from __future__ import annotations

import random
from typing import Any

import torch


def good_state(step: int) -> dict[str, Any]:
    """What a checkpoint of one rank holds after a step."""
    skipped = {"counts": {}, "seen": 0, "bad": 0, "bytes": 0, "known": [], "first": None}
    rank = {
        "torch": torch.zeros(8, dtype=torch.uint8),
        "cuda": None,
        "own": torch.zeros(8, dtype=torch.uint8),
        "python": random.Random(0).getstate(),
        "numpy": ["MT19937", [1, 2], 3, 0, 0.0],
        "loader": {"setting": {"seed": 0}, "position": 3, "rank": 0, "skipped": skipped},
    }
    group = {"lr": 1e-3, "eps": 1e-8, "weight_decay": 0.1, "params": [0]}
    return {
        "step": step,
        "name": "tiny",
        "recipe": "name: tiny",
        "world_size": 1,
        "parallel": "ddp",
        "state_dict": {"w": torch.randn(30, 30)},
        "loss": {},
        "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [group]},
        "schedule": {"last_epoch": step, "base_lrs": [1e-3]},
        "scaler": {},
        "interval": {"sums": {}, "count": None, "latest": {}, "seconds": 1.5},
        "nonfinite": 0,
        "ranks": [rank],
    }
