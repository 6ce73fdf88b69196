"""KL to the average of several teachers' distributions, made of requests that every backend has."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from kdlosses.relation import Relation
from kdlosses.requests import KL, JensenShannon, Request, add_up
from kdlosses.term import Computation

Directions = Sequence[Relation]


def divergence_from_mixture(
    students: Sequence[tuple[float, Directions]], teachers: Sequence[Directions], weights: Sequence[float]
) -> Computation:
    """``sum_s w_s KL(sum_k w_k p_k || q_s)``, the mean of the directions; p_k the softmax of teacher k.

    It is made of KLs that every backend has: for weights that sum to 1,
    ``KL(sum_k w_k p_k || q) = sum_k w_k KL(p_k || q) - sum_k w_k KL(p_k || sum_l w_l p_l)``. The second sum is a
    constant, the teachers' generalised Jensen-Shannon divergence; it costs one more product a teacher and direction.

    Args:
        students: weight and relation, one for each direction, of each distribution that is pulled.
        teachers: the relations of each teacher, one for each direction.
        weights: of the teachers; they sum to 1, as do the students'.
    """
    parts: list[tuple[float, Request]] = []
    targets = list(zip(*teachers, strict=True))
    for direction, target in enumerate(targets):
        for share, relations in students:
            for teacher, weight in zip(target, weights, strict=True):
                parts.append((share * weight, KL(relations[direction], teacher)))
        parts.append((-1.0, JensenShannon(target, weights)))

    def finish(answers: Sequence[Tensor]) -> Tensor:
        return add_up(factor * rows.mean() for (factor, _), rows in zip(parts, answers, strict=True)) / len(targets)

    def by_pair(answers: Sequence[Tensor]) -> Tensor:
        return add_up(factor * rows for (factor, _), rows in zip(parts, answers, strict=True)) / len(targets)

    return Computation([request for _, request in parts], finish, by_pair)
