"""A loss's own parameters: equal on all processes at the start, and equal ever after."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor, nn

from kdlosses.distributed.agreement import exchange, ranks
from kdlosses.distributed.columns import averaged
from kdlosses.distributed.shard import Shard, alone, check_group, place

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


def share_parameters(loss: nn.Module, group: str | ProcessGroup | None = "auto") -> None:
    """Keep the parameters of ``loss`` equal on all processes, for those who do not wrap it in DistributedDataParallel.

    Copies rank 0's parameters and buffers to all now, and from now on averages every gradient over the processes as
    soon as a backward pass has added to it. Several backward passes before one optimizer step are right too: a gradient
    that is averaged already stays what it is. Every process must make the same backward passes, as with DDP.

    Args:
        loss: a loss, or any module whose gradients are to be averaged; move it to its device and dtype first.
        group: as in `DistillLoss`; without other processes nothing is done.

    Raises:
        ValueError: for something that is not a process group with this process in it.

    Example:
        The same script runs on one process, where there is nothing to share, and under ``torchrun`` on several.

        >>> from kdlosses import CLIPKDLoss, share_parameters
        >>> loss = CLIPKDLoss(student_dim=16, teacher_dim=32)
        >>> share_parameters(loss)
    """
    check_group(group)
    if alone(group):
        return
    shard = place(group)
    for buffer in loss.buffers():
        buffer.copy_(_of_first(shard, buffer))
    for parameter in loss.parameters():
        # Through .data, as autograd forbids writing to a leaf that requires a gradient.
        parameter.data.copy_(_of_first(shard, parameter))
        if parameter.requires_grad:
            # After accumulation, when .grad holds all that this backward pass adds.
            parameter.register_post_accumulate_grad_hook(partial(_average, shard))


def is_shared(parameter: Tensor) -> bool:
    """Whether `share_parameters` keeps this parameter equal on all processes."""
    hooks = (parameter._post_accumulate_grad_hooks or {}).values()
    return any(isinstance(hook, partial) and hook.func is _average for hook in hooks)


def check_equal(shard: Shard, loss: nn.Module) -> None:
    """Make sure that the parameters and buffers of ``loss`` are the same numbers on all processes.

    Raises:
        ValueError: on every process, naming those that differ, and where.
    """
    buffers = dict(loss.named_buffers())
    every = {**dict(loss.named_parameters()), **buffers}
    differs = [int(not torch.equal(_bits(_of_first(shard, one)), _bits(one))) for one in every.values()]
    names = list(every)
    everyone = exchange(shard, differs) if names else []
    for name, flags in zip(names, zip(*everyone, strict=True), strict=True):
        where = [rank for rank, flag in enumerate(flags) if flag]
        if where and name in buffers:
            raise ValueError(
                f"{type(loss).__name__}'s buffer {name} on {ranks(where)} differs from rank 0's; set the same keys or "
                "load the same state on every process, or call kdlosses.share_parameters(loss) after that"
            )
        if where:
            raise ValueError(
                f"{type(loss).__name__}'s parameter {name} on {ranks(where)} differs from rank 0's; wrap the loss in "
                "DistributedDataParallel or call kdlosses.share_parameters(loss) before training, and seed alike"
            )


def _average(shard: Shard, parameter: Tensor) -> None:
    assert parameter.grad is not None, "the hook runs once a gradient is there"
    parameter.grad.copy_(averaged(shard, parameter.grad))


def _of_first(shard: Shard, parameter: Tensor) -> Tensor:
    """Rank 0's numbers of this parameter."""
    bits = _bits(parameter).clone()
    dist.broadcast(bits, src=dist.get_global_rank(shard.group, 0), group=shard.group)
    return bits.view(parameter.dtype).view(parameter.shape)


def _bits(parameter: Tensor) -> Tensor:
    # As bytes: every backend carries them in any dtype, and a NaN equals itself.
    return parameter.detach().contiguous().reshape(-1).view(torch.uint8)
