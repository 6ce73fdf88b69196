"""Terms for several teachers, made from those for one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from kdlosses.relation import Pairs, Relation
from kdlosses.requests import KL, JensenShannon, Request, Term, add_up

Directions = tuple[Relation, Relation]


def weighted_mean(terms: Sequence[Term], weights: Sequence[float]) -> Term:
    """``sum_k w_k L_k``: each teacher's own term."""
    requests = [request for term in terms for request in term.requests]

    def finish(answers: Sequence[Any]) -> Tensor:
        parts, start = [], 0
        for term, weight in zip(terms, weights, strict=True):
            stop = start + len(term.requests)
            parts.append(weight * term.finish(answers[start:stop]))
            start = stop
        return add_up(parts)

    return Term(requests, finish)


def divergence_from_mixture(
    students: Sequence[tuple[float, Directions]], teachers: Sequence[Pairs], weights: Sequence[float]
) -> Term:
    """``sum_s w_s KL(sum_k w_k p_k || q_s)``, the mean of both directions; p_k the softmax of teacher k.

    It is made of KLs that every backend has: for weights that sum to 1,
    ``KL(sum_k w_k p_k || q) = sum_k w_k KL(p_k || q) - sum_k w_k KL(p_k || sum_l w_l p_l)``. The second sum is a
    constant, the teachers' generalised Jensen-Shannon divergence; it costs one more product a teacher and direction.

    Args:
        students: weight, image-to-text and text-to-image relation of each distribution that is pulled.
        teachers: pairs of each teacher.
        weights: of the teachers; they sum to 1, as do the students'.
    """
    parts: list[tuple[float, Request]] = []
    targets = [tuple(teacher.i2t for teacher in teachers), tuple(teacher.t2i for teacher in teachers)]
    for direction, target in enumerate(targets):
        for share, relations in students:
            for teacher, weight in zip(target, weights, strict=True):
                parts.append((share * weight, KL(relations[direction], teacher)))
        parts.append((-1.0, JensenShannon(target, weights)))

    def finish(answers: Sequence[Tensor]) -> Tensor:
        return add_up(factor * rows.mean() for (factor, _), rows in zip(parts, answers, strict=True)) / len(targets)

    return Term([request for _, request in parts], finish)
