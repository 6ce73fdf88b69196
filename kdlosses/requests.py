"""What a loss may ask of a backend, and how a loss combines the answers.

A loss hands over all its requests at once and the combined loss hands over those of all its terms, so that a backend
can answer them in one pass over each tile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from kdlosses.relation import Relation


@dataclass(eq=False)
class CrossEntropy:
    """``[N]``: minus the log-softmax of each row at its positive, in nats."""

    relation: Relation


@dataclass(eq=False)
class KL:
    """``[N]``: KL(teacher row || student row) = sum p_t (log p_t - log p_s), in nats."""

    student: Relation
    teacher: Relation


@dataclass(eq=False)
class CrossEntropyGrad:
    """``([N, D], [M, D])``: the gradients of the relation's mean cross-entropy, differentiable once more.

    With R = softmax of the rows minus the positives' indicator: ``scale / N * R @ keys`` (with respect to the queries)
    and ``scale / N * R.T @ queries`` (with respect to the keys), N being this relation's own rows. In closed form, so
    that no backend needs a double backward.
    """

    relation: Relation


Request = CrossEntropy | KL | CrossEntropyGrad


@dataclass(eq=False)
class Term:
    """The requests of one loss term and the function that turns their answers into its scalar."""

    requests: Sequence[Request]
    finish: Callable[[Sequence[Any]], Tensor]


def mean_of_directions(rows: Sequence[Tensor]) -> Tensor:
    """The mean over rows of each direction, averaged over the directions."""
    total = rows[0].mean()
    for direction in rows[1:]:
        total = total + direction.mean()
    return total / len(rows)
