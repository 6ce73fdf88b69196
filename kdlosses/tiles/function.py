"""The autograd node of all backends: statistics forward, closed-form products backward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import is_legacy_batchedtensor, peek_interpreter_stack

from kdlosses.requests import Request
from kdlosses.tiles.passes import Engine, answer, gradients, live_relations
from kdlosses.tiles.program import Gradient, Program, program_of, with_definitions
from kdlosses.tiles.statistics import Statistics
from kdlosses.tiles.walk import Kept


def evaluate(requests: Sequence[Request], engine: Engine) -> list[Any]:
    """The answers to ``requests``, in order, differentiable once."""
    return with_definitions(requests, lambda known: _evaluate(known, engine), engine.size)


def _evaluate(requests: Sequence[Request], engine: Engine) -> list[Any]:
    refuse_transforms()
    program = program_of(requests)
    answers = iter(_Answers.apply(program, engine, *program.tensors()))
    return [(next(answers), next(answers)) if isinstance(o, Gradient) else next(answers) for o in program.outputs]


def constants(gradients: Sequence[Tensor | None], depends_on: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Gradients of which none can be differentiated; unconnected, torch would take their derivative for zero."""
    tensors = [tensor for tensor in depends_on if tensor is not None and tensor.requires_grad]
    return [None if one is None else _Constant.apply(one.requires_grad_(), *tensors) for one in gradients]


_TWICE = (
    "the gradients of a loss of kdlosses cannot be differentiated again (a gradient penalty asks for that); "
    "where a batch is small enough for it, take backend='reference', which can be."
)
_TRANSFORMED = (
    "a loss of kdlosses cannot be transformed by torch.func (grad, jacrev, jvp, vmap and their like), differentiated "
    "in forward mode, nor its gradients be taken in batches (is_grads_batched, vectorize); use loss(...).backward() or "
    "torch.autograd.grad, once for each, or backend='reference' where a batch is small enough for it."
)


def refuse_transforms(upstream: Sequence[Tensor | None] = ()) -> None:
    """Refuse what torch itself would refuse in words about what is within, or take for zero."""
    batched = any(one is not None and is_legacy_batchedtensor(one) for one in upstream)
    if batched or peek_interpreter_stack() is not None:
        raise RuntimeError(_TRANSFORMED)


class _Answers(torch.autograd.Function):
    """All requests of a call as one node, so that each tensor gets one gradient, summed in full precision."""

    @staticmethod
    def forward(ctx: Any, program: Program, engine: Engine, *tensors: Tensor) -> tuple[Tensor, ...]:
        kept = Kept([], {})
        answers, statistics = answer(program, engine, kept)
        ctx.program, ctx.engine = program, engine
        # An answer that nothing was made of arrives as None, not as zeros, and its products are left out.
        ctx.set_materialize_grads(False)
        ctx.relations = kept.relations
        live = live_relations(program, ctx.needs_input_grad[2:])
        ctx.keys = [key for key in kept.tiles if any(kept.relations[key[0]] is relation for relation in live)]
        # Not as attributes: autograd frees saved tensors after the backward pass, attributes live as long as the loss.
        tiles = [kept.tiles[key] for key in ctx.keys]
        # The program has the inputs; saved as well, autograd sees to it that nobody writes to them in the meantime.
        inputs = [tensor for tensor in tensors if not tensor.is_inference()]
        ctx.num_inputs = len(inputs)
        ctx.save_for_backward(*inputs, *(statistic for job in statistics for statistic in job), *tiles)
        return tuple(answers)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor | None) -> tuple[Tensor | None, ...]:
        refuse_transforms(upstream)
        statistics, kept = _restore(ctx)
        with torch.no_grad():  # create_graph=True asks for more
            found = gradients(ctx.program, ctx.engine, statistics, kept, upstream, ctx.needs_input_grad[2:])
        if torch.is_grad_enabled():
            found = constants(found, (*upstream, *ctx.saved_tensors[: ctx.num_inputs]))
        return None, None, *found

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> None:
        raise RuntimeError(_TRANSFORMED)


class _Constant(torch.autograd.Function):
    """A gradient that refuses to be differentiated, with respect to any of the tensors that it depends on."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, *depends_on: Tensor) -> Tensor:
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        raise RuntimeError(_TWICE)


def _restore(ctx: Any) -> tuple[list[Statistics], Kept]:
    saved, fields = list(ctx.saved_tensors), len(Statistics._fields)
    first, jobs = ctx.num_inputs, len(ctx.program.jobs)
    statistics = [Statistics(*saved[start : start + fields]) for start in range(first, first + jobs * fields, fields)]
    tiles = dict(zip(ctx.keys, saved[first + jobs * fields :], strict=True))
    return statistics, Kept(list(ctx.relations), tiles)
