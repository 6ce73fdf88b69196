"""Check of an optimizer's saved state: torch takes one that is empty, or of other parameters, without a word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from harness.errors import UserError
from harness.way_on import way_on

# What AdamW keeps of each parameter.
_KEPT = {"step", "exp_avg", "exp_avg_sq"}


def check_not_empty(state: dict[str, Any], folder: Path) -> None:
    """Refuse to go on from a checkpoint whose optimizer remembers nothing of the steps taken.

    Args:
        state: the checkpoint's content.
        folder: it is from.

    Raises:
        UserError: it is empty, although a step was not skipped.
    """
    saved = state.get("optimizer")
    kept = isinstance(saved, dict) and bool(saved.get("state"))
    # The scaler of fp16, which has a state only there, skips steps too, and does not count them.
    may_be_empty = bool(state.get("scaler")) or state.get("nonfinite", 0) >= state["step"]
    if not kept and not may_be_empty:
        raise UserError(
            f"the checkpoint of step {state['step']} in {folder} has an empty optimizer state, so the run would go on "
            f"otherwise than it began; delete it to resume from the one before, or {way_on().restart}"
        )


def check_restored(optimizer: torch.optim.Optimizer, named: list[tuple[str, nn.Parameter]]) -> None:
    """Refuse a state that belongs to other parameters.

    Args:
        optimizer: into which the state was loaded.
        named: its parameters.

    Raises:
        ValueError: what is wrong with it.
    """
    names = {id(parameter): name for name, parameter in named}
    for parameter, kept in optimizer.state.items():
        name = names.get(id(parameter))
        if name is None:
            raise ValueError(f"the optimizer's state has an entry {str(parameter)[:40]} that is of no parameter")
        missing = sorted(_KEPT - kept.keys())
        if missing:
            raise ValueError(f"the optimizer's state of {name} lacks {', '.join(missing)}")
        for key, value in kept.items():
            if key != "step" and isinstance(value, Tensor) and value.shape != parameter.shape:
                there, here = list(value.shape), list(parameter.shape)
                raise ValueError(f"the optimizer's {key} of {name} has shape {there}, the parameter {here}")
