"""Jobs about the warning of parameters that are not kept equal: each gives the guard's sentences on this rank."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.nn.parallel import DistributedDataParallel

import kdlosses
from tests.distributed.cases import MIXED, part
from tests.distributed.world import Jobs
from tests.running import build

Wrap = Callable[[nn.Module], nn.Module]


def _told(wrap: Wrap, rank: int, size: int, *, optimizer: bool = True, **keywords: object) -> list[str]:
    """Two steps of a loss that has a linear layer before it, as `wrap` returns both."""
    model = _Model(build("icl", MIXED, dtype=torch.float32, **keywords))
    wrapped = wrap(model)
    held = torch.optim.SGD(wrapped.parameters() if optimizer else model.layer.parameters(), lr=0.1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            wrapped(part(MIXED.inputs(torch.float32), rank, size)).backward()
            held.step()
    return [str(one.message) for one in caught if one.category is kdlosses.UntrainedParametersWarning]


class _Model(nn.Module):
    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.layer, self.loss = nn.Linear(4, 4), loss

    def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.loss(**inputs | {"image_features": self.layer(inputs["image_features"])})


def _nothing(model: nn.Module) -> nn.Module:
    return model


def _student_in_ddp(model: nn.Module) -> nn.Module:
    model.layer = DistributedDataParallel(model.layer)
    return model


def _shared(model: nn.Module) -> nn.Module:
    kdlosses.share_parameters(model.loss)
    return _student_in_ddp(model)


def _loss_in_ddp(model: nn.Module) -> nn.Module:
    model.loss = DistributedDataParallel(model.loss)
    return model


def _left_out_of_ddp(model: nn.Module) -> nn.Module:
    names = [name for name, _ in model.named_parameters() if name.startswith("loss.visual")]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, names)
    return DistributedDataParallel(model)


def _fsdp1(model: nn.Module, use_orig_params: bool) -> nn.Module:
    model.loss.cross_logit_scale = nn.Parameter(model.loss.cross_logit_scale.detach().reshape(1))
    return FullyShardedDataParallel(model, device_id=torch.device("cpu"), use_orig_params=use_orig_params)


def _fsdp2(model: nn.Module, **keywords: object) -> nn.Module:
    model.loss.cross_logit_scale = nn.Parameter(model.loss.cross_logit_scale.detach().reshape(1))
    return fully_shard(model, **keywords)


def _alone(rank: int, size: int) -> list[list[str]]:
    """Within its process, and in a group of this process alone."""
    return [_told(_nothing, rank, size, group=group) for group in _of_one(rank, size)]


def _alone_in_ddp(rank: int, size: int) -> list[list[str]]:
    """Likewise, with the student in DDP: without the loss, with it, and with the loss shared."""
    wraps = (_student_in_ddp, DistributedDataParallel, _shared)
    return [_told(wrap, rank, size, group=group) for wrap in wraps for group in _of_one(rank, size)]


def _of_one(rank: int, size: int) -> list[dist.ProcessGroup | None]:
    return [None, [dist.new_group([one]) for one in range(size)][rank]]


JOBS: Jobs = {
    "nothing": partial(_told, _nothing),
    "student-in-ddp": partial(_told, _student_in_ddp),
    "neither": partial(_told, _student_in_ddp, optimizer=False),
    "left-out-of-ddp": partial(_told, _left_out_of_ddp),
    "shared": partial(_told, _shared),
    "in-ddp": partial(_told, DistributedDataParallel),
    "loss-in-ddp": partial(_told, _loss_in_ddp),
    "alone": _alone,
    "alone-in-ddp": _alone_in_ddp,
    "fsdp1-flat": partial(_told, partial(_fsdp1, use_orig_params=False)),
    "fsdp1": partial(_told, partial(_fsdp1, use_orig_params=True)),
}
if hasattr(torch.cpu.Stream, "record_event"):  # torch 2.6's FSDP2 cannot do without on a CPU
    JOBS |= {
        "fsdp2": partial(_told, _fsdp2),
        "fsdp2-whole": partial(_told, partial(_fsdp2, reshard_after_forward=False)),
        "fsdp2-without-optimizer": partial(_told, _fsdp2, optimizer=False),
    }
