"""What a loss may ask of a backend, and how a loss combines the answers.

A loss hands over all its requests at once and the combined loss hands over those of all its terms, so that a backend
can answer them in one pass over each tile, and sum their gradients before rounding them once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from kdlosses.relation import Relation
from kdlosses.rows import Rows


@dataclass(eq=False)
class CrossEntropy:
    """``[N]``: minus the log-softmax of each row at its positive, in nats."""

    relation: Relation


@dataclass(eq=False)
class KL:
    """``[N]``: KL(teacher row || student row) = sum p_t (log p_t - log p_s), in nats.

    The teacher's relation is a constant: it receives no gradient.
    """

    student: Relation
    teacher: Relation


@dataclass(eq=False)
class SoftCrossEntropy:
    """``[N]``: minus sum p_t log p_s, in nats: KL(teacher row || student row) plus the teacher row's entropy.

    The teacher's relation is a constant, so that its gradients are the KL's.
    """

    student: Relation
    teacher: Relation


@dataclass(eq=False)
class CrossEntropyGrad:
    """``([N, D], [M, D])``: the gradients of the relation's mean cross-entropy, differentiable once more.

    With R = softmax of the rows minus the positives' indicator: ``scale / N * R @ keys`` (with respect to the unit
    queries) and ``scale / N * R.T @ queries`` (to the unit keys), N being this relation's own rows. With ``both``, R is
    the mean of the two directions' and the answer the gradient of the CLIP loss. In closed form, so that no backend
    needs a double backward.
    """

    relation: Relation
    both: bool = False


@dataclass(eq=False)
class SquaredDistance:
    """``[N]``: the squared distance between matching unit rows; ``teacher`` is a constant."""

    student: Rows
    teacher: Rows


@dataclass(eq=False)
class JensenShannon:
    """``[N]``: sum_k w_k KL(row of relation k || sum_l w_l row of relation l), in nats; how far teachers disagree.

    All relations are constants: they receive no gradient. The weights sum to 1.
    """

    relations: Sequence[Relation]
    weights: Sequence[float]


@dataclass(eq=False)
class SigmoidCrossEntropy:
    """``[N]``: each row's sum, over all columns, of the binary cross-entropy of ``sigmoid(z)``, in nats.

    ``z`` is the relation plus ``bias``. The target is 1 at the row's positive and 0 elsewhere or, with a teacher, the
    sigmoid of the teacher's relation plus ``teacher_bias``; both of those are constants.
    """

    relation: Relation
    bias: Tensor
    teacher: Relation | None = None
    teacher_bias: Tensor | None = None


Request = (
    SigmoidCrossEntropy | CrossEntropy | KL | SoftCrossEntropy | CrossEntropyGrad | SquaredDistance | JensenShannon
)


@dataclass(eq=False)
class Term:
    """The requests of one loss term and the function that turns their answers into its scalar.

    The scalar is a mean over rows of something that each row has by itself once the requests are answered: only so is
    the mean over several processes, which each have a part of the rows, that of all rows.
    """

    requests: Sequence[Request]
    finish: Callable[[Sequence[Any]], Tensor]


def add_up(values: Iterable[Tensor]) -> Tensor:
    """The sum of at least one tensor; ``sum`` begins with the number 0, which is one more addition and another type."""
    total, *others = values
    for value in others:
        total = total + value
    return total


def mean_of_directions(rows: Sequence[Tensor]) -> Tensor:
    """The mean over rows of each direction, averaged over the directions."""
    return add_up(direction.mean() for direction in rows) / len(rows)


def relations_in(request: Request) -> list[Relation]:
    """The relations that ``request`` reads."""
    if isinstance(request, SquaredDistance):
        return []
    if isinstance(request, JensenShannon):
        return list(request.relations)
    if isinstance(request, (KL, SoftCrossEntropy)):
        return [request.student, request.teacher]
    if isinstance(request, SigmoidCrossEntropy) and request.teacher is not None:
        return [request.relation, request.teacher]
    return [request.relation]


def rows_in(request: Request) -> list[Rows]:
    """The rows that ``request`` reads, queries first."""
    if isinstance(request, SquaredDistance):
        return [request.student, request.teacher]
    return [rows for relation in relations_in(request) for rows in (relation.queries, relation.keys)]
