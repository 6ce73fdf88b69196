"""A bank's softmax over constant keys: each row's value and its slope with respect to the row's logits, times the keys.

As the keys are constants, all that a backward pass needs of them is one vector a row. It is made in the forward pass
from the logits that are there anyway, so that nothing is computed again, and the bank may change before the backward.

Logits are made for a few whole rows at a time: memory is linear in the rows and in the keys.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kdlosses.relation import no_logit
from kdlosses.tiles.blocks import blocks
from kdlosses.tiles.function import constants, refuse_transforms

_LEAST_ROWS = 64  # below that, reading the keys costs more than multiplying them
_LARGEST = 4096  # side of a tile: its buffers then take 64 MiB each in float32
_SETTINGS = "SymInt? size, bool slopes) -> (Tensor, Tensor)"


def divergences(
    student: Tensor,
    student_scale: Tensor,
    teacher: Tensor,
    teacher_scale: Tensor,
    keys: Tensor,
    absent: Tensor | None,
    size: int | None,
    slopes: bool,
) -> tuple[Tensor, Tensor]:
    """``KL(p || q)`` of each row and ``(q - p) @ keys``; see `kdlosses.bank.requests.BankKL`.

    Args:
        student, teacher: ``[N, D]`` unit queries.
        student_scale, teacher_scale: 0-d.
        keys: ``[K, D]``, unit.
        absent: ``[K]``, true where there is no key yet.
        size: rows and columns of a tile, None for whole matrices.
        slopes: whether the second answer is wanted; empty otherwise.
    """
    values, found = _empty(student, slopes)
    for rows in blocks(len(student), _height(size, len(keys))):
        log_q = _logits(student[rows], student_scale, keys, absent).log_softmax(1)
        log_p = _logits(teacher[rows], teacher_scale, keys, absent).log_softmax(1)
        gap = log_q - log_p
        p = log_p.exp_()
        rise = log_q.exp_().sub_(p)
        if slopes:
            found[rows] = rise @ keys
        # Both softmaxes sum to 1, so their difference adds nothing to the sum; it takes away what rounding has put into
        # the logarithms' normalizers, which is more than a small divergence.
        values[rows] = rise.addcmul_(p, gap, value=-1).sum(1)
    return values, found


def cross_entropies(
    student: Tensor, scale: Tensor, keys: Tensor, targets: Tensor, size: int | None, slopes: bool
) -> tuple[Tensor, Tensor]:
    """The mean cross-entropy of each row to its targets, and its slope; see `kdlosses.bank.requests.BankCrossEntropy`.

    The first target stays out of the sum over keys, so that a row that is sure of it keeps its digits.

    Args:
        student: ``[N, D]`` unit queries.
        scale: 0-d.
        keys: ``[K, D]``, unit.
        targets: ``[N, P]`` columns, -1 where a row has fewer.
        size, slopes: see `divergences`.
    """
    values, found = _empty(student, slopes)
    for rows in blocks(len(student), _height(size, len(keys))):
        logits = _logits(student[rows], scale, keys, None)
        present, columns = targets[rows] >= 0, targets[rows].clamp_min(0)
        any_, lead = present.any(1), present.int().argmax(1, keepdim=True)
        shares = present.to(logits.dtype) / present.sum(1, keepdim=True).clamp_min(1)
        own = logits.gather(1, columns.gather(1, lead))
        mean = (shares * logits.gather(1, columns)).sum(1, keepdim=True)
        rest = logits.scatter(1, columns.gather(1, lead), no_logit(logits.dtype)).logsumexp(1, keepdim=True)
        row_values = torch.logaddexp(rest - own, torch.zeros_like(own)) + (own - mean)
        values[rows] = torch.where(any_, row_values.squeeze(1), 0)
        if slopes:
            total = torch.logaddexp(rest, own)
            q = logits.sub_(total).exp_().scatter_(1, columns.gather(1, lead), -(rest - total).exp())
            # The softmax less the shares; of a single target what is left of it, which is exact: 1 - 1.
            q.scatter_add_(1, columns, -shares.scatter_add(1, lead, -torch.ones_like(own)))
            found[rows] = torch.where(any_[:, None], q @ keys, 0)
    return values, found


def with_slopes(values: Tensor, slopes: Tensor, unit: Tensor, scale: Tensor) -> Tensor:
    """``values`` with the gradient ``scale * slopes`` to the unit rows and ``slopes . unit`` to the scale.

    Args:
        values: ``[N]``.
        slopes: ``[N, D]``: of each value to its row's logits, times the keys.
        unit: ``[N, D]``.
        scale: 0-d.
    """
    if not torch.compiler.is_compiling():
        refuse_transforms()
    found: Tensor = _WithSlopes.apply(values, slopes, unit, scale)
    return found


class _WithSlopes(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, slopes: Tensor, unit: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(slopes, unit, scale)
        return values.clone()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        slopes, unit, scale = ctx.saved_tensors
        compiling = torch.compiler.is_compiling()
        if not compiling:
            refuse_transforms([upstream])
        with torch.no_grad():
            found: list[Tensor | None] = [None, None]
            if ctx.needs_input_grad[2]:
                found[0] = (upstream * scale).unsqueeze(1) * slopes
            if ctx.needs_input_grad[3]:
                found[1] = (upstream * (slopes * unit).sum(1)).sum()
        if not compiling and torch.is_grad_enabled():
            found = constants(found, (upstream, unit, scale))
        return None, None, *found


def _logits(queries: Tensor, scale: Tensor, keys: Tensor, absent: Tensor | None) -> Tensor:
    logits = (scale * queries) @ keys.T
    return logits if absent is None else logits.masked_fill_(absent, no_logit(logits.dtype))


def _empty(student: Tensor, slopes: bool) -> tuple[Tensor, Tensor]:
    count, width = student.shape
    return student.new_empty(count), student.new_empty((count if slopes else 0, width))


def _height(size: int | None, num_keys: int) -> int | None:
    """So many rows that their logits take the room of one tile."""
    if size is None:
        return None
    side = min(size, _LARGEST)
    return max(side**2 // num_keys, min(side, _LEAST_ROWS))


# As operators for a compiler: one graph for any number of rows, with the numbers of eager mode.
divergences_op = torch.library.custom_op(
    "kdlosses::bank_divergences",
    divergences,
    mutates_args=(),
    schema="(Tensor student, Tensor student_scale, Tensor teacher, Tensor teacher_scale, Tensor keys, Tensor? absent, "
    + _SETTINGS,
)
cross_entropies_op = torch.library.custom_op(
    "kdlosses::bank_cross_entropies",
    cross_entropies,
    mutates_args=(),
    schema="(Tensor student, Tensor scale, Tensor keys, Tensor targets, " + _SETTINGS,
)
divergences_op.register_fake(lambda student, *others: _empty(student, others[-1]))
cross_entropies_op.register_fake(lambda student, *others: _empty(student, others[-1]))
