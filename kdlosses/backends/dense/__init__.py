"""The dense backend: whole matrices in plain torch, differentiated by autograd.

The readable definition of every request and the reference for other backends. Memory: a few N x M matrices a term.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kdlosses.relation import Relation
from kdlosses.requests import KL, CrossEntropy, CrossEntropyGrad, Request


def unavailable() -> str | None:
    """Plain torch runs wherever torch does."""
    return None


def evaluate(requests: Sequence[Request]) -> list[Any]:
    """Answer ``requests`` in order; relations named twice are computed once."""
    tables = _Tables()
    return [_ANSWERS[type(request)](request, tables) for request in requests]


class _Tables:
    """The logits and row-wise log-softmax of each relation met during one call."""

    def __init__(self) -> None:
        self._logits: dict[Relation, Tensor] = {}
        self._log_probs: dict[Relation, Tensor] = {}

    def logits(self, relation: Relation) -> Tensor:
        if relation.source is not None:
            return self.logits(relation.source).T
        if relation not in self._logits:
            # The scale goes onto the N x D queries: one N x M multiplication and its saved operand less.
            self._logits[relation] = (relation.scale * relation.queries) @ relation.keys.T
        return self._logits[relation]

    def log_probs(self, relation: Relation) -> Tensor:
        if relation not in self._log_probs:
            self._log_probs[relation] = F.log_softmax(self.logits(relation), dim=1)
        return self._log_probs[relation]


def _cross_entropy(request: CrossEntropy, tables: _Tables) -> Tensor:
    return -_positives(tables.log_probs(request.relation), request.relation)


def _kl(request: KL, tables: _Tables) -> Tensor:
    student, teacher = tables.log_probs(request.student), tables.log_probs(request.teacher)
    return F.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=1)


def _cross_entropy_grad(request: CrossEntropyGrad, tables: _Tables) -> tuple[Tensor, Tensor]:
    relation = request.relation
    log_probs = tables.log_probs(relation)
    probs = log_probs.exp()
    others = torch.diagonal_scatter(probs, torch.zeros_like(_positives(probs, relation)), offset=relation.offset)
    # p - 1 at the positive as minus the sum of the others, which keeps its digits where a confident row has p near 1.
    residual = torch.diagonal_scatter(others, -others.sum(dim=1), offset=relation.offset)
    factor = relation.scale / relation.queries.shape[0]
    return factor * (residual @ relation.keys), factor * (residual.T @ relation.queries)


def _positives(table: Tensor, relation: Relation) -> Tensor:
    return table.diagonal(offset=relation.offset)


_ANSWERS = {CrossEntropy: _cross_entropy, KL: _kl, CrossEntropyGrad: _cross_entropy_grad}
