"""A loss with parameters of its own as a part of the student, for trainers that know the student alone.

Whatever such a trainer does with ``student.parameters()`` and ``student.state_dict()`` - optimizer, DDP, clipping, EMA,
checkpoints - it then does with the loss as well.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

from torch import nn
from torch.nn.parallel import DistributedDataParallel

NAME = "kd_loss"
# What wrappers put before a name: DDP, torch.compile, FSDP1, activation checkpointing, peft; in any order and number.
_ENTRY = re.compile(
    rf"(module\.|_orig_mod\.|_fsdp_wrapped_module\.|_checkpoint_wrapped_module\.|base_model\.model\.)*{NAME}\."
)
T = TypeVar("T")


def attach_loss(student: nn.Module, loss: nn.Module) -> None:
    """Make ``loss`` the submodule ``kd_loss`` of ``student``; call it before the optimizer and DDP are made.

    The student's forward is not touched: call ``student.kd_loss`` (or ``loss``, which is the same object) with its
    outputs. DDP then averages the loss's gradients too, unless it was made with ``find_unused_parameters=True``: it
    takes parameters that are used outside of its forward for unused ones.

    Args:
        student: the model that the trainer knows, not yet wrapped in DDP.
        loss: any loss module; one without parameters is attached all the same.

    Raises:
        ValueError: where the student has a ``kd_loss`` already or is wrapped in DDP.

    Example:
        >>> from torch import nn
        >>> from kdlosses import ICLLoss
        >>> from kdlosses.integrations.attach import attach_loss
        >>> student = nn.Linear(4, 4, bias=False)
        >>> attach_loss(student, ICLLoss())
        >>> [name for name, _ in student.named_parameters()]
        ['weight', 'kd_loss.cross_logit_scale']
    """
    if isinstance(student, DistributedDataParallel):
        raise ValueError(
            "attach_loss: the student is wrapped in DistributedDataParallel, which has listed its parameters already; "
            "attach the loss to the bare model first and wrap it then"
        )
    if hasattr(student, NAME):
        raise ValueError(
            f"attach_loss: {type(student).__name__} has a {NAME} already; take it away with detach_loss(student) first"
        )
    student.add_module(NAME, loss)


def detach_loss(student: nn.Module) -> nn.Module:
    """Take the loss away from ``student`` again and return it; what is left is the student to export.

    Args:
        student: the bare model, or one wrapped in DDP or by ``torch.compile``.

    Raises:
        ValueError: where no loss is attached.

    Example:
        >>> from torch import nn
        >>> from kdlosses import ICLLoss
        >>> from kdlosses.integrations.attach import attach_loss, detach_loss
        >>> student, loss = nn.Linear(4, 4, bias=False), ICLLoss()
        >>> attach_loss(student, loss)
        >>> detach_loss(student) is loss
        True
        >>> list(student.state_dict())
        ['weight']
    """
    bare = _bare(student)
    loss = bare._modules.pop(NAME, None)
    if loss is None:
        raise ValueError(
            f"detach_loss: {type(bare).__name__} has no {NAME}; attach one with attach_loss(student, loss)"
        )
    return loss


def without_loss(state_dict: Mapping[str, T]) -> dict[str, T]:
    """The entries of ``state_dict`` that are not the attached loss's; all other names stay as they are.

    Args:
        state_dict: of a student with a loss attached, also one whose names begin with ``module.`` or ``_orig_mod.``.

    Returns:
        A new dict; the tensors are the same objects.

    Example:
        >>> from kdlosses.integrations.attach import without_loss
        >>> without_loss({"module.visual.weight": 1, "module.kd_loss.cross_logit_scale": 2})
        {'module.visual.weight': 1}
    """
    return {name: value for name, value in state_dict.items() if not _ENTRY.match(name)}


def _bare(model: nn.Module) -> nn.Module:
    while NAME not in model._modules:
        inner = model._modules.get("module", model._modules.get("_orig_mod"))
        if inner is None:
            return model
        model = inner
    return model
