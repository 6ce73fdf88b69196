"""The torch engine as two operators that a compiler does not look into.

Traced, every tile would be a part of the graph: a graph for each number of tiles, minutes of compiling for a few dozen
of them, and sums in another order. As operators, both passes run as they do in eager mode, to the last bit, for any
number of rows; and autograd saves their inputs, so that a write to one of them between the passes is noticed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from kdlosses.requests import CrossEntropyGrad, JensenShannon, Request, SquaredDistance
from kdlosses.rows import autocast_device
from kdlosses.tiles import function, passes
from kdlosses.tiles.engine import TorchEngine
from kdlosses.tiles.layout import RequestLayout, requests_of
from kdlosses.tiles.packed import Packed, kept_relations
from kdlosses.tiles.program import (
    Gradient,
    Job,
    Output,
    Program,
    Sigmoid,
    SigmoidJob,
    Softmax,
    program_of,
    with_definitions,
)
from kdlosses.tiles.statistics import Statistics

# What a `RequestLayout` is made of, and a `TorchEngine`.
_SETTINGS = "SymInt[] numbers, float[] shares, SymInt? size, bool keeps"
_FORWARD = f"(Tensor[] tensors, {_SETTINGS}) -> Tensor[]"
_BACKWARD = f"(Tensor?[] tensors, Tensor?[] saved, Tensor?[] upstream, bool[] needed, {_SETTINGS}) -> Tensor[]"


def evaluate(requests: Sequence[Request], engine: TorchEngine) -> list[Any]:
    """The answers to ``requests``, in order, differentiable once."""
    if torch.compiler.is_compiling():
        return evaluate_opaquely(requests, engine)
    return function.evaluate(requests, engine)


def evaluate_opaquely(requests: Sequence[Request], engine: TorchEngine) -> list[Any]:
    """The same, with an operator for all that there are tiles for."""
    return with_definitions(requests, lambda known: _answers(known, engine), engine.size)


def _answers(requests: Sequence[Request], engine: TorchEngine) -> list[Any]:
    layout = RequestLayout(requests)
    answers = iter(_forward(layout.tensors, layout.numbers, layout.shares, engine.size, engine.keeps))
    return [
        (next(answers), next(answers)) if isinstance(request, CrossEntropyGrad) else next(answers)
        for request in requests
    ]


class _Call:
    """A call of an operator as a program again; its tensors are objects of its own, each known by its position."""

    def __init__(self, tensors: Sequence[Tensor], numbers: Sequence[int], shares: Sequence[float]) -> None:
        self.tensors = [tensor.detach() for tensor in tensors]
        self.program = program_of(requests_of(self.tensors, numbers, shares))

    def positions(self) -> list[int]:
        """Where each of the program's tensors stands in the call."""
        return [self.position(tensor) for tensor in self.program.tensors()]

    def position(self, tensor: Tensor) -> int:
        """Where ``tensor`` stands in the call."""
        return next(i for i, other in enumerate(self.tensors) if other is tensor)


@torch.library.custom_op("kdlosses::answers", mutates_args=(), schema=_FORWARD)
def _forward(
    tensors: list[Tensor], numbers: Sequence[int], shares: Sequence[float], size: int | None, keeps: bool
) -> list[Tensor]:
    """The answers, the statistics that there are, and what is kept of each relation."""
    program, packed = _Call(tensors, numbers, shares).program, Packed()
    with torch.autocast(autocast_device(tensors[0]), enabled=False):
        answers, statistics = passes.answer(program, TorchEngine(size, keeps), packed)
    # Row sums against both kinds of targets are views of one tensor, which an operator's outputs may not be.
    answers = [
        one.clone() if isinstance(output, Sigmoid) else one
        for output, one in zip(_doubled(program), answers, strict=True)
    ]
    return [*answers, *(one for job in statistics for one in job if one is not None), *packed.matrices]


def _doubled(program: Program) -> Iterator[Output]:
    """The output that each answer belongs to: a gradient has two."""
    for output in program.outputs:
        yield output
        if isinstance(output, Gradient):
            yield output


@_forward.register_fake
def _(
    tensors: list[Tensor], numbers: Sequence[int], shares: Sequence[float], size: int | None, keeps: bool
) -> list[Tensor]:
    program, like = _Call(tensors, numbers, shares).program, tensors[1]
    shapes = [shape for output in program.outputs for shape in _answer_shapes(program, output)]
    shapes += [shape for job in program.jobs for shape in _statistics_shapes(job) if shape is not None]
    if keeps:
        shapes += [(count * others,) for count, others in (one.shape for one in kept_relations(program))]
    return [like.new_empty(shape) for shape in shapes]


def _answer_shapes(program: Program, output: Output) -> list[tuple[int, ...]]:
    if isinstance(output, SquaredDistance):
        return [(output.student.values.shape[0],)]
    if isinstance(output, JensenShannon):
        return [(output.of[0].shape[0],)]
    if isinstance(output, Sigmoid):
        return [(program.sigmoid_jobs[output.job].relation.shape[0],)]
    relation = program.jobs[output.job].relation
    if isinstance(output, Softmax):
        return [(relation.shape[1 if output.cols else 0],)]
    sides = [tuple(side.values.shape) for side in (relation.queries, relation.keys)]
    return sides[::-1] if output.swapped else sides


def _statistics_shapes(job: Job) -> list[tuple[int, ...] | None]:
    """Of rows, columns and positives, as in `Statistics`; None for a direction that is not asked for."""
    (count, others), entries = job.relation.shape, 2 if job.teacher is None else 6 if job.entropy else 5
    return [
        (entries, count) if job.rows else None,
        (entries, others) if job.cols else None,
        (1 if job.teacher is None else 2, count),
    ]


def _setup(ctx: Any, inputs: Any, output: list[Tensor]) -> None:
    tensors, *ctx.settings = inputs
    call = _Call(tensors, *ctx.settings[:2])
    read = _read_again(call, keeps=ctx.settings[-1]) | {2 * i + 1 for i in range(ctx.settings[0][0])}
    ctx.num_tensors, ctx.num_answers = len(tensors), len(list(_doubled(call.program)))
    ctx.needed = [i in read and tensor.requires_grad for i, tensor in enumerate(tensors)]
    ctx.set_materialize_grads(False)  # or zeros of a kept matrix's size would arrive
    ctx.mark_non_differentiable(*output[ctx.num_answers :])
    inputs = [_savable(tensor) if i in read else None for i, tensor in enumerate(tensors)]
    ctx.save_for_backward(*inputs, *_live_part(call, ctx.needed, output[ctx.num_answers :], ctx.settings[-1]))


def _read_again(call: _Call, keeps: bool) -> set[int]:
    """The positions of what the backward pass reads: all but mixtures, and teachers whose logits were kept.

    Autograd cannot save a tensor of inference mode, in which teachers run; what is not read need not be saved.
    """
    program = call.program
    jobs: list[Job | SigmoidJob] = [*program.jobs, *program.sigmoid_jobs]
    relations = [job.relation for job in jobs]
    if not keeps:
        relations += [job.teacher for job in jobs if job.teacher is not None]
    rows = [rows for relation in relations for rows in (relation.queries, relation.keys)]
    for output in program.outputs:
        if isinstance(output, SquaredDistance):
            rows += [output.student, output.teacher]
    read = [relation.scale for relation in relations] + [
        tensor for one in rows for tensor in (one.values, one.inverse_norms)
    ]
    for job in program.sigmoid_jobs:
        read += [bias for bias in (job.bias, job.teacher_bias) if bias is not None]
    return {call.position(tensor) for tensor in read}


def _savable(tensor: Tensor) -> Tensor:
    return tensor.clone() if tensor.is_inference() else tensor


def _live_part(call: _Call, needed: Sequence[bool], saved: Sequence[Tensor], keeps: bool) -> list[Tensor | None]:
    """``saved`` without the kept logits that no gradient which is asked for depends on."""
    if not keeps:
        return list(saved)
    relations = kept_relations(call.program)
    live = passes.live_relations(call.program, [needed[i] for i in call.positions()])
    first = len(saved) - len(relations)
    matrices = [
        matrix if any(relation is one for one in live) else None
        for relation, matrix in zip(relations, saved[first:], strict=True)
    ]
    return [*saved[:first], *matrices]


def _differentiate(ctx: Any, upstream: list[Tensor | None]) -> tuple[Any, ...]:
    function.refuse_transforms(upstream)
    saved = ctx.saved_tensors
    tensors, others = list(saved[: ctx.num_tensors]), list(saved[ctx.num_tensors :])
    upstream = list(upstream[: ctx.num_answers])
    with torch.no_grad():  # create_graph=True asks for more
        gradients = _backward(tensors, others, upstream, ctx.needed, *ctx.settings)
    found = iter(function.constants(gradients, (*upstream, *tensors)) if torch.is_grad_enabled() else gradients)
    by_position = [next(found) if needed else None for needed in ctx.needed]
    # torch takes a list without entries for one of tensors, which has a list of gradients.
    return by_position, None, [] if not ctx.settings[1] else None, None, None


@torch.library.custom_op("kdlosses::gradients", mutates_args=(), schema=_BACKWARD)
def _backward(
    tensors: list[Tensor | None],
    saved: list[Tensor | None],
    upstream: list[Tensor | None],
    needed: Sequence[bool],
    numbers: Sequence[int],
    shares: Sequence[float],
    size: int | None,
    keeps: bool,
) -> list[Tensor]:
    """The gradients that are needed, in order."""
    call = _Call(_completed(tensors, numbers[0]), numbers, shares)
    left = iter(saved)
    statistics = [_statistics(job, left) for job in call.program.jobs]
    kept = Packed.of(kept_relations(call.program), list(left), size) if keeps else Packed()
    positions = call.positions()
    found = passes.gradients(
        call.program, TorchEngine(size, keeps), statistics, kept, upstream, [needed[i] for i in positions]
    )
    by_position = {i: one for i, one in zip(positions, found, strict=True) if one is not None}
    return [by_position[i] for i, one in enumerate(needed) if one]


def _statistics(job: Job, saved: Iterator[Tensor | None]) -> Statistics:
    rows, cols = (next(saved) if asked else None for asked in (job.rows, job.cols))
    positives = next(saved)
    assert positives is not None, "statistics are saved, whoever asks"
    return Statistics(rows, cols, positives)


def _completed(tensors: Sequence[Tensor | None], num_rows: int) -> list[Tensor]:
    """With tensors without memory in the place of those that nobody reads, which have their number of rows."""
    found = []
    for i, tensor in enumerate(tensors):
        if tensor is None:
            norms = tensors[i + 1 if i < 2 * num_rows else 1]
            assert norms is not None, "inverse norms are always saved"
            tensor = norms.new_empty(()).expand(len(norms), 1) if i < 2 * num_rows else norms.new_empty(())
        found.append(tensor)
    return found


@_backward.register_fake
def _(tensors: list[Tensor], saved: Any, upstream: Any, needed: Sequence[bool], *settings: Any) -> list[Tensor]:
    return [torch.empty_like(tensor) for tensor, one in zip(tensors, needed, strict=True) if one]


_forward.register_autograd(_differentiate, setup_context=_setup)
