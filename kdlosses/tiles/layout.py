"""Requests as plain numbers and a list of tensors, and back: what an operator can be called with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from torch import Tensor

from kdlosses.relation import DIAGONALS, Relation
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
from kdlosses.tiles.program import KNOWN

_Item = TypeVar("_Item")


class RequestLayout:
    """Requests, taken apart.

    What is one object stays one: relations, rows, scales and biases are numbered, and a request names their numbers.

    Attributes:
        tensors: values and inverse norms of each of the rows in turn, then scales, then biases.
        numbers: how many rows and scales there are, the relations, then the requests.
        shares: the weights of mixtures.
    """

    def __init__(self, requests: Sequence[Request]) -> None:
        self._rows: list[Rows] = []
        self._scales: list[Tensor] = []
        self._biases: list[Tensor] = []
        self._relations: list[Relation] = []
        self._described: list[int] = []
        self.shares: list[float] = []
        words: list[int] = []
        for request in requests:
            words += self._request(request)
        self.numbers = [len(self._rows), len(self._scales), len(self._relations), *self._described, *words]
        self.tensors = [tensor for rows in self._rows for tensor in (rows.values, rows.inverse_norms)]
        self.tensors += [*self._scales, *self._biases]

    def _request(self, request: Request) -> list[int]:
        kind = [next(i for i, one in enumerate(KNOWN) if isinstance(request, one))]
        if isinstance(request, (KL, SoftCrossEntropy, ReverseKL)):
            return [*kind, self._relation(request.student), self._relation(request.teacher)]
        if isinstance(request, CrossEntropyGrad):
            return [*kind, self._relation(request.relation), int(request.both)]
        if isinstance(request, SquaredDistance):
            return [*kind, _number(self._rows, request.student), _number(self._rows, request.teacher)]
        if isinstance(request, JensenShannon):
            self.shares += request.weights
            return [*kind, len(request.of), *[self._relation(one) for one in request.of]]
        if isinstance(request, SigmoidCrossEntropy):
            return [
                *kind,
                self._relation(request.relation),
                _number(self._biases, request.bias),
                *self._taught(request),
            ]
        assert isinstance(request, CrossEntropy), "there are tiles for no other kind"
        return [*kind, self._relation(request.relation)]

    def _taught(self, request: SigmoidCrossEntropy) -> list[int]:
        if request.teacher is None or request.teacher_bias is None:
            return [-1, -1]
        return [self._relation(request.teacher), _number(self._biases, request.teacher_bias)]

    def _relation(self, relation: Relation | None) -> int:
        """Its number; -1 for none. Those that it was made of are described before it."""
        if relation is None:
            return -1
        for number, known in enumerate(self._relations):
            if known is relation:
                return number
        made_of = [self._relation(relation.source), self._relation(relation.like)]
        rows = [_number(self._rows, relation.queries), _number(self._rows, relation.keys)]
        diagonal = DIAGONALS.index(relation.diagonal)
        self._described += [*rows, _number(self._scales, relation.scale), relation.offset, *made_of, diagonal]
        self._relations.append(relation)
        return len(self._relations) - 1


def _number(items: list[_Item], item: _Item) -> int:
    for number, known in enumerate(items):
        if known is item:
            return number
    items.append(item)
    return len(items) - 1


def requests_of(tensors: Sequence[Tensor], numbers: Sequence[int], shares: Sequence[float]) -> list[Request]:
    """The requests that a `RequestLayout` was made of, with these tensors."""
    words, left = iter(numbers), iter(shares)
    num_rows, num_scales, num_relations = next(words), next(words), next(words)
    rows = [Rows(tensors[2 * i], tensors[2 * i + 1]) for i in range(num_rows)]
    scales = tensors[2 * num_rows : 2 * num_rows + num_scales]
    biases = tensors[2 * num_rows + num_scales :]
    relations: list[Relation] = []
    for _ in range(num_relations):
        queries, keys, scale, offset, source, like, diagonal = (next(words) for _ in range(7))
        of, copied = (None if one < 0 else relations[one] for one in (source, like))
        which = DIAGONALS[diagonal]
        relations.append(Relation(rows[queries], rows[keys], scales[scale], offset, of, copied, which))
    found: list[Request] = []
    for kind in words:
        found.append(_request_of(KNOWN[kind], words, left, relations, rows, biases))
    return found


def _request_of(
    kind: Any,
    words: Iterator[int],
    shares: Iterator[float],
    relations: Sequence[Relation],
    rows: Sequence[Rows],
    biases: Sequence[Tensor],
) -> Request:
    if kind is SquaredDistance:
        return SquaredDistance(rows[next(words)], rows[next(words)])
    if kind is JensenShannon:
        those = [relations[next(words)] for _ in range(next(words))]
        return JensenShannon(those, [next(shares) for _ in those])
    first = relations[next(words)]
    if kind is CrossEntropyGrad:
        return CrossEntropyGrad(first, bool(next(words)))
    if kind is SigmoidCrossEntropy:
        bias, teacher, teacher_bias = biases[next(words)], next(words), next(words)
        if teacher < 0:
            return SigmoidCrossEntropy(first, bias)
        return SigmoidCrossEntropy(first, bias, relations[teacher], biases[teacher_bias])
    request: Request = kind(first) if kind is CrossEntropy else kind(first, relations[next(words)])
    return request
