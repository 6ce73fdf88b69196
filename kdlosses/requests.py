"""What a term may ask of a backend, and how the answers are combined.

A loss hands over all its requests at once and the combined loss hands over those of all its terms, so that a backend
can answer them in one pass over each tile, and sum their gradients before rounding them once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from kdlosses.relation import Relation
from kdlosses.rows import Rows

_Asked = TypeVar("_Asked", bound="Request")


@dataclass(eq=False)
class Request:
    """One question to a backend; a subclass is a dataclass of what is compared.

    ``answer`` is its definition, in plain torch on whole matrices: what every backend must agree with, what
    ``backend="reference"`` computes. Any other backend asks a kind that it has no tiles for to ``solve``
    itself, which is that definition unless the kind brings a faster way.
    """

    # Whether the answer is (one of the queries, one of the keys), so that several processes sum the latter.
    answers_keys: ClassVar[bool] = False

    def answer(self) -> Any:
        """The answer, differentiable as often as one likes."""
        raise NotImplementedError

    def solve(self, size: int | None) -> Any:
        """The same answer by a faster way that a kind without tiles may have: how backends but the reference ask.

        Args:
            size: rows and columns of a tile, None where whole matrices are welcome.
        """
        return self.answer()

    def relations(self) -> list[Relation]:
        """The relations that are read."""
        raise NotImplementedError

    def kept(self) -> list[Relation]:
        """The relations of which ``dense`` keeps the matrix."""
        return self.relations()

    def rows(self) -> list[Rows]:
        """The rows that are read, queries first."""
        return [rows for relation in self.relations() for rows in (relation.queries, relation.keys)]

    def mapped(self: _Asked, change: Callable[[Relation], Relation]) -> _Asked:
        """The same question about other relations."""

        def changed(value: Any) -> Any:
            if isinstance(value, (list, tuple)):
                return [changed(one) for one in value]
            return change(value) if isinstance(value, Relation) else value

        return replace(self, **{field.name: changed(getattr(self, field.name)) for field in fields(self)})

    def directions(self) -> list[Request]:
        """One question for each direction: a process has all keys for its queries, but not all rows for its keys."""
        return [self]


@dataclass(eq=False)
class CrossEntropy(Request):
    """``[N]``: minus the log-softmax of each row at its positive, in nats."""

    relation: Relation

    def __post_init__(self) -> None:
        _check_positives(self.relation)

    def answer(self) -> Tensor:
        """See `Request`."""
        return _cross_entropies(self.relation.matrix(), self.relation.offset)

    def relations(self) -> list[Relation]:
        """See `Request`."""
        return [self.relation]


@dataclass(eq=False)
class KL(Request):
    """``[N]``: KL(teacher row || student row) = sum p_t (log p_t - log p_s), in nats.

    The teacher's relation is a constant: it receives no gradient.
    """

    student: Relation
    teacher: Relation

    def __post_init__(self) -> None:
        _check_alike(self.student, self.teacher)

    def answer(self) -> Tensor:
        """See `Request`."""
        log_p, log_q = self.teacher.matrix().detach().log_softmax(1), self.student.matrix().log_softmax(1)
        return (log_p.exp() * (log_p - log_q)).sum(1)

    def relations(self) -> list[Relation]:
        """See `Request`."""
        return [self.student, self.teacher]


@dataclass(eq=False)
class SoftCrossEntropy(Request):
    """``[N]``: minus sum p_t log p_s, in nats: KL(teacher row || student row) plus the teacher row's entropy.

    The teacher's relation is a constant, so that its gradients are the KL's.
    """

    student: Relation
    teacher: Relation

    def __post_init__(self) -> None:
        _check_alike(self.student, self.teacher)

    def answer(self) -> Tensor:
        """See `Request`."""
        return -(self.teacher.matrix().detach().softmax(1) * self.student.matrix().log_softmax(1)).sum(1)

    def relations(self) -> list[Relation]:
        """See `Request`."""
        return [self.student, self.teacher]


@dataclass(eq=False)
class ReverseKL(Request):
    """``[N]``: KL(student row || teacher row) = sum p_s (log p_s - log p_t), in nats.

    Where `KL` asks the student for all that the teacher finds likely, this asks it for nothing that the teacher finds
    unlikely. The teacher's relation is a constant.
    """

    student: Relation
    teacher: Relation

    def __post_init__(self) -> None:
        _check_alike(self.student, self.teacher)

    def answer(self) -> Tensor:
        """See `Request`."""
        log_p, log_q = self.teacher.matrix().detach().log_softmax(1), self.student.matrix().log_softmax(1)
        return (log_q.exp() * (log_q - log_p)).sum(1)

    def relations(self) -> list[Relation]:
        """See `Request`."""
        return [self.student, self.teacher]


@dataclass(eq=False)
class CrossEntropyGrad(Request):
    """``([N, D], [M, D])``: the gradients of the relation's mean cross-entropy, differentiable once more.

    With R = softmax of the rows minus the positives' indicator: ``scale / N * R @ keys`` (with respect to the unit
    queries) and ``scale / N * R.T @ queries`` (to the unit keys), N being this relation's own rows. With ``both``, R is
    the mean of the two directions' and the answer the gradient of the CLIP loss. In closed form, so that no backend
    needs a double backward.
    """

    relation: Relation
    both: bool = False

    answers_keys: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_positives(self.relation)

    def answer(self) -> tuple[Tensor, Tensor]:
        """See `Request`."""
        logits = self.relation.matrix()
        residual = _residual(logits, self.relation.offset)
        if self.both:
            residual = (residual + _residual(logits.T, 0).T) / 2
        weights = self.relation.scale / len(logits) * residual
        queries, keys = self.relation.queries.normalized(), self.relation.keys.normalized()
        return weights @ keys, weights.T @ queries

    def directions(self) -> list[Request]:
        """See `Request`."""
        if not self.both:
            return [self]
        relation = self.relation
        return [CrossEntropyGrad(relation), CrossEntropyGrad(Relation(relation.keys, relation.queries, relation.scale))]

    def relations(self) -> list[Relation]:
        """See `Request`."""
        return [self.relation]


@dataclass(eq=False)
class SquaredDistance(Request):
    """``[N]``: the squared distance between matching unit rows; ``teacher`` is a constant."""

    student: Rows
    teacher: Rows

    def answer(self) -> Tensor:
        """See `Request`."""
        return (self.student.normalized() - self.teacher.normalized().detach()).square().sum(1)

    def rows(self) -> list[Rows]:
        """See `Request`."""
        return [self.student, self.teacher]

    def relations(self) -> list[Relation]:
        """See `Request`."""
        return []


@dataclass(eq=False)
class SmoothDistance(Request):
    """``[N]``: as `SquaredDistance`, with smooth L1 of each number of ``sqrt(D) (x - y)`` for its square.

    A number of a unit row is about ``1 / sqrt(D)``: only as large as this do outliers pass smooth L1's bend at 1.
    """

    student: Rows
    teacher: Rows

    def answer(self) -> Tensor:
        """See `Request`."""
        student, teacher = self.student.normalized(), self.teacher.normalized().detach()
        stretch = student.shape[1] ** 0.5
        return F.smooth_l1_loss(stretch * student, stretch * teacher, reduction="none").mean(1)

    def rows(self) -> list[Rows]:
        """See `Request`."""
        return [self.student, self.teacher]

    def relations(self) -> list[Relation]:
        """See `Request`."""
        return []


@dataclass(eq=False)
class JensenShannon(Request):
    """``[N]``: sum_k w_k KL(row of relation k || sum_l w_l row of relation l), in nats; how far teachers disagree.

    All relations are constants: they receive no gradient. The weights sum to 1.
    """

    of: Sequence[Relation]
    weights: Sequence[float]

    def __post_init__(self) -> None:
        _check_alike(*self.of)

    @torch.no_grad()
    def answer(self) -> Tensor:
        """See `Request`."""
        logs = [relation.matrix().log_softmax(1) for relation in self.relations()]
        pairs = list(zip(self.weights, logs, strict=True))
        mixture = torch.stack([log + math.log(weight) for weight, log in pairs]).logsumexp(0)
        return add_up(weight * (log.exp() * (log - mixture)).sum(1) for weight, log in pairs)

    def relations(self) -> list[Relation]:
        """See `Request`."""
        return list(self.of)


@dataclass(eq=False)
class SigmoidCrossEntropy(Request):
    """``[N]``: each row's sum, over all columns, of the binary cross-entropy of ``sigmoid(z)``, in nats.

    ``z`` is the relation plus ``bias``. The target is 1 at the row's positive and 0 elsewhere or, with a teacher, the
    sigmoid of the teacher's relation plus ``teacher_bias``; both of those are constants.
    """

    relation: Relation
    bias: Tensor
    teacher: Relation | None = None
    teacher_bias: Tensor | None = None

    def __post_init__(self) -> None:
        _check_positives(*self.relations())

    def answer(self) -> Tensor:
        """See `Request`."""
        logits = self.relation.matrix() + self.bias
        if self.teacher is None or self.teacher_bias is None:
            target = _positives(logits, self.relation.offset)
        else:
            target = (self.teacher.matrix() + self.teacher_bias).sigmoid().detach()
        return F.binary_cross_entropy_with_logits(logits, target, reduction="none").sum(1)

    def relations(self) -> list[Relation]:
        """See `Request`."""
        return [self.relation] if self.teacher is None else [self.relation, self.teacher]


def add_up(values: Iterable[Tensor]) -> Tensor:
    """The sum of at least one tensor; ``sum`` begins with the number 0, which is one more addition and another type."""
    total, *others = values
    for value in others:
        total = total + value
    return total


def mean_of_directions(rows: Sequence[Tensor]) -> Tensor:
    """The mean over rows of each direction, averaged over the directions."""
    return add_up(direction.mean() for direction in rows) / len(rows)


def pairs_of_directions(rows: Sequence[Tensor]) -> Tensor:
    """``[B]``: each pair's value, averaged over the directions; its mean is `mean_of_directions`."""
    return add_up(rows) / len(rows)


def _check_positives(*relations: Relation) -> None:
    for relation in relations:
        if relation.diagonal != "positive":
            raise ValueError(
                "a comparison with labels, or of sigmoids, needs a positive in each row, got a relation with "
                f"diagonal={relation.diagonal!r}; compare softmaxes of it, by KL or SoftCrossEntropy"
            )


def _check_alike(*relations: Relation) -> None:
    kinds = {relation.diagonal: None for relation in relations}
    if len(kinds) > 1:
        raise ValueError(
            "relations whose softmaxes are compared must have the same diagonal, so that both are over the same "
            f"entries, got {' and '.join(map(repr, kinds))}"
        )


def _positives(logits: Tensor, offset: int) -> Tensor:
    """The indicator of each row's positive."""
    rows = torch.arange(len(logits), device=logits.device)
    return torch.zeros_like(logits).index_put((rows, rows + offset), logits.new_ones(()))


def _cross_entropies(logits: Tensor, offset: int) -> Tensor:
    targets = torch.arange(len(logits), device=logits.device) + offset
    return F.cross_entropy(logits, targets, reduction="none")


def _residual(logits: Tensor, offset: int) -> Tensor:
    return logits.softmax(1) - _positives(logits, offset)
