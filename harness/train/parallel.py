"""Parallelism: DDP of the student, or FSDP2 of student and teachers, and their full state dicts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from harness.errors import UserError
from harness.task import DistillTask
from harness.train.distributed import DistributedContext

Parallel = Literal["ddp", "fsdp2"]
_SCALARS = ("logit_scale", "logit_bias")
# A stack of at least this many equal modules is a stack of blocks, each gathered and freed by itself.
_STACK = 2
_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def can_shard(device: torch.device) -> bool:
    """Whether this torch's FSDP2 works there: 2.6's calls streams on CPUs what they cannot answer."""
    return device.type != "cpu" or hasattr(torch.cpu.Stream, "record_event")


def parallelize(task: DistillTask, kind: Parallel, distributed: DistributedContext, device: torch.device) -> None:
    """Wrap ``task.encoder`` in DDP, or shard it and the teachers with FSDP2; does nothing for one process.

    The loss's own parameters are few: every rank keeps them all, and their gradients are averaged afterwards.
    """
    if distributed.world_size == 1:
        return
    if kind == "fsdp2":
        if not can_shard(device):
            raise UserError(
                f"train.parallel is fsdp2, which torch {torch.__version__} cannot do on CPUs; use ddp or a newer torch"
            )
        whole = [teacher for teacher in task.teachers if any(True for _ in teacher.parameters())]
        for model in (task.student, *whole):
            shard_blocks(model)
        for module in (task.encoder, *whole):
            fully_shard(module)
        return
    ids = [device.index] if device.type == "cuda" else None
    task.encoder = DistributedDataParallel(task.encoder, device_ids=ids, gradient_as_bucket_view=True)


def shard_blocks(model: nn.Module) -> None:
    """Shard each block of the model's stacks, so that one block at a time is whole."""
    for block in _blocks(model):
        fully_shard(block)


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The members of the outermost stacks of like modules with parameters."""
    for child in module.children():
        members = list(child.children()) if isinstance(child, nn.ModuleList | nn.Sequential) else []
        alike = len({type(member) for member in members}) == 1 and len(members) >= _STACK
        if alike and all(any(True for _ in member.parameters()) for member in members):
            yield from members
        else:
            yield from _blocks(child)


def make_scalars_1d(model: nn.Module) -> None:
    """Give logit_scale (and logit_bias) one dimension: FSDP2 cannot shard a number without any."""
    for name in _SCALARS:
        parameter = getattr(model, name, None)
        if isinstance(parameter, nn.Parameter) and parameter.ndim == 0:
            setattr(model, name, nn.Parameter(parameter.detach().reshape(1), requires_grad=parameter.requires_grad))


def student_state(task: DistillTask, kind: Parallel) -> dict[str, Any]:
    """The whole student's state dict, under its own names; with FSDP2 on rank 0 alone, and on the CPU."""
    if kind == "ddp":
        return task.student.state_dict()
    # Its type says that a state dict may hold anything; a full one of a model holds tensors.
    state = cast("dict[str, Tensor]", get_model_state_dict(task.student, options=_WHOLE))
    return {name: value.reshape(()) if name in _SCALARS else value for name, value in state.items()}


def load_student_state(task: DistillTask, kind: Parallel, state: dict[str, Tensor]) -> None:
    """Put back what `student_state` returned; every rank passes the whole of it."""
    if kind == "ddp":
        task.student.load_state_dict(state)
        return
    shaped: dict[str, Any] = {name: value.reshape(1) if name in _SCALARS else value for name, value in state.items()}
    set_model_state_dict(task.student, shaped, options=StateDictOptions(full_state_dict=True))


def optimizer_state(task: DistillTask, kind: Parallel, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The whole optimizer's state; with FSDP2 by parameter name and on rank 0 alone."""
    if kind == "ddp":
        return optimizer.state_dict()
    return get_optimizer_state_dict(_owners(task), optimizer, options=_WHOLE)


def load_optimizer_state(
    task: DistillTask, kind: Parallel, optimizer: torch.optim.Optimizer, state: dict[str, Any]
) -> None:
    """Put back what `optimizer_state` returned."""
    if kind == "ddp":
        optimizer.load_state_dict(state)
        return
    set_optimizer_state_dict(_owners(task), optimizer, state, options=StateDictOptions(full_state_dict=True))


def _owners(task: DistillTask) -> nn.Module:
    return nn.ModuleDict({"student": task.student, "loss": task.loss})
