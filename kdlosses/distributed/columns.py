"""Rows and gradients on their way between processes, packed so that one collective carries all tensors of a call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from kdlosses.distributed.collectives import all_gather, reduce_scatter
from kdlosses.distributed.shard import Shard

_ALIGNMENT = 8  # bytes of the widest dtype


def gather(shard: Shard, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Every process's rows of each tensor, in the order of their ranks, differentiable where the tensor is.

    Args:
        shard: this process's place.
        tensors: ``[n, D]`` each, of any dtype, the same number of rows, widths and dtypes everywhere.

    Returns:
        ``[size * n, D]`` each, in its dtype. Backward sums the processes' gradients, in float32 or wider.
    """
    return list(_Gather.apply(shard, *tensors))


def reduce(shard: Shard, tensors: Sequence[Tensor]) -> list[Tensor]:
    """This process's rows of each tensor's sum over all processes, differentiable; the counterpart of `gather`.

    Args:
        shard: this process's place.
        tensors: ``[size * n, D]`` each.

    Returns:
        ``[n, D]`` each, in its dtype.
    """
    return list(_Reduce.apply(shard, *tensors))


def mean(shard: Shard, values: Tensor) -> Tensor:
    """The processes' mean of ``values``, with the gradient of this process's own: DDP takes the mean of those."""
    averages: Tensor = _Mean.apply(shard, values)
    return averages


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, shard: Shard, *tensors: Tensor) -> tuple[Tensor, ...]:
        return _begin(ctx, shard, _gathered(shard, tensors))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        return _back(ctx, upstream, _reduced)


class _Reduce(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, shard: Shard, *tensors: Tensor) -> tuple[Tensor, ...]:
        return _begin(ctx, shard, _reduced(shard, tensors))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        return _back(ctx, upstream, _gathered)


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, shard: Shard, values: Tensor) -> Tensor:
        return averaged(shard, values)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[None, Tensor]:
        return None, upstream


def averaged(shard: Shard, values: Tensor) -> Tensor:
    """The processes' mean of ``values``, without autograd, in its dtype; summed in float32 or wider."""
    # A copy, as all_reduce writes in place; dense, as it sends the memory as it lies.
    total = values.detach().to(_wide([values]), copy=True, memory_format=torch.contiguous_format)
    dist.all_reduce(total, group=shard.group)
    return total.div_(shard.size).to(values.dtype)


def _begin(ctx: Any, shard: Shard, results: list[Tensor]) -> tuple[Tensor, ...]:
    ctx.shard = shard
    # Or autograd would have the backward pass send gradients that nobody reads.
    constant = [result for result, need in zip(results, ctx.needs_input_grad[1:], strict=True) if not need]
    ctx.mark_non_differentiable(*constant)
    return tuple(results)


def _back(ctx: Any, upstream: Sequence[Tensor], move: Any) -> tuple[Tensor | None, ...]:
    needed = ctx.needs_input_grad[1:]
    moved = iter(move(ctx.shard, [gradient for gradient, need in zip(upstream, needed, strict=True) if need]))
    return None, *(next(moved) if need else None for need in needed)


def _gathered(shard: Shard, tensors: Sequence[Tensor]) -> list[Tensor]:
    # As bytes: one collective for all dtypes, exact, and within what every backend carries. The widest dtype first
    # and whole rows of eight bytes, so that every column starts where its dtype may.
    order = sorted(range(len(tensors)), key=lambda i: -tensors[i].element_size())
    parts = [tensors[i].contiguous().view(torch.uint8) for i in order]
    padding = parts[0].new_zeros(len(parts[0]), -sum(part.shape[1] for part in parts) % _ALIGNMENT)
    packed = torch.cat([*parts, padding], dim=1)
    whole = packed.new_empty(shard.size * packed.shape[0], packed.shape[1])
    all_gather(whole, packed, shard)
    slices = whole.split([*(part.shape[1] for part in parts), padding.shape[1]], dim=1)
    found = {i: column.view(tensors[i].dtype) for i, column in zip(order, slices, strict=False)}
    return [found[i] for i in range(len(tensors))]


def _reduced(shard: Shard, tensors: Sequence[Tensor]) -> list[Tensor]:
    # Wider than 16 bits on the way, or every process would round the sum once more.
    packed = torch.cat([tensor.to(_wide(tensors)) for tensor in tensors], dim=1)
    own = packed.new_empty(packed.shape[0] // shard.size, packed.shape[1])
    reduce_scatter(own, packed, shard)
    columns = own.split([tensor.shape[1] for tensor in tensors], dim=1)
    return [column.to(tensor.dtype) for column, tensor in zip(columns, tensors, strict=True)]


def _wide(tensors: Sequence[Tensor]) -> torch.dtype:
    return torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32
