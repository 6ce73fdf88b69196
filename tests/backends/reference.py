"""Every request answered straight from its definition, in float64, by autograd through plain torch.

Of kdlosses only the descriptions of requests are used, no arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from kdlosses.relation import Relation
from kdlosses.requests import (
    KL,
    CrossEntropy,
    CrossEntropyGrad,
    JensenShannon,
    Request,
    ReverseKL,
    SigmoidCrossEntropy,
    SoftCrossEntropy,
    SquaredDistance,
)
from kdlosses.rows import Rows


def answer(request: Request) -> list[Tensor]:
    """The answers to one request: two for a gradient, otherwise one."""
    if isinstance(request, SquaredDistance):
        return [(unit(request.student) - unit(request.teacher).detach()).square().sum(1)]
    if isinstance(request, KL):
        log_p, log_q = (logits(relation).log_softmax(1) for relation in (request.teacher, request.student))
        log_p = log_p.detach()
        return [(log_p.exp() * (log_p - log_q)).sum(1)]
    if isinstance(request, ReverseKL):
        log_p, log_q = (logits(relation).log_softmax(1) for relation in (request.teacher, request.student))
        return [(log_q.exp() * (log_q - log_p.detach())).sum(1)]
    if isinstance(request, SoftCrossEntropy):
        p, log_q = logits(request.teacher).softmax(1).detach(), logits(request.student).log_softmax(1)
        return [-(p * log_q).sum(1)]
    if isinstance(request, SigmoidCrossEntropy):
        return [_sigmoid_cross_entropies(request)]
    if isinstance(request, CrossEntropy):
        return [cross_entropies(logits(request.relation), request.relation.offset)]
    if isinstance(request, JensenShannon):
        return [_jensen_shannon(request)]
    assert isinstance(request, CrossEntropyGrad)
    return _gradients(request)


def answers(requests: Sequence[Request]) -> list[Tensor]:
    """All answers in one flat list."""
    return [tensor for request in requests for tensor in answer(request)]


def unit(rows: Rows) -> Tensor:
    return F.normalize(rows.values.double(), dim=1)


def logits(relation: Relation) -> Tensor:
    table = relation.scale.double() * unit(relation.queries) @ unit(relation.keys).T
    if relation.diagonal != "excluded":
        return table
    rows, cols = (torch.arange(length, device=table.device) for length in table.shape)
    others = rows[:, None] + relation.offset != cols
    return table[others].view(len(rows), len(cols) - 1)


def cross_entropies(table: Tensor, offset: int) -> Tensor:
    return F.cross_entropy(table, torch.arange(len(table), device=table.device) + offset, reduction="none")


def _sigmoid_cross_entropies(request: SigmoidCrossEntropy) -> Tensor:
    table = logits(request.relation) + request.bias.double()
    if request.teacher is None:
        rows = torch.arange(len(table), device=table.device)
        target = torch.zeros_like(table).index_put((rows, rows + request.relation.offset), table.new_ones(()))
    else:
        target = (logits(request.teacher) + request.teacher_bias.double()).sigmoid().detach()
    return F.binary_cross_entropy_with_logits(table, target, reduction="none").sum(1)


@torch.no_grad()
def _jensen_shannon(request: JensenShannon) -> Tensor:
    rows = [logits(relation).softmax(1) for relation in request.of]
    mixture = sum(weight * row for weight, row in zip(request.weights, rows, strict=True))
    return sum(w * (row * (row / mixture).log()).sum(1) for w, row in zip(request.weights, rows, strict=True))


def _gradients(request: CrossEntropyGrad) -> list[Tensor]:
    relation = request.relation
    with torch.enable_grad():
        # Twice one: queries and keys stay two tensors where a relation compares rows with themselves.
        queries, keys = (
            (rows if rows.requires_grad else rows.requires_grad_()) * 1.0
            for rows in map(unit, (relation.queries, relation.keys))
        )
        table = relation.scale.double() * queries @ keys.T
        loss = cross_entropies(table, relation.offset).mean()
        if request.both:
            loss = (loss + cross_entropies(table.T, 0).mean()) / 2
        return list(torch.autograd.grad(loss, [queries, keys], create_graph=True))
