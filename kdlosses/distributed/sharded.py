"""Requests about all processes' rows, answered for the rows of this one.

A relation of a loss is between this process's rows. Here its keys become everybody's, so that each process computes its
own rows of the whole matrix and no work is done twice. No loss and no backend knows of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kdlosses.backends.contract import Backend
from kdlosses.distributed import columns
from kdlosses.distributed.shard import Shard
from kdlosses.relation import Relation
from kdlosses.requests import (
    KL,
    CrossEntropy,
    CrossEntropyGrad,
    JensenShannon,
    Request,
    SigmoidCrossEntropy,
    SoftCrossEntropy,
    relations_in,
)
from kdlosses.rows import rows_of


def evaluate(shard: Shard, backend: Backend, requests: Sequence[Request]) -> list[Any]:
    """The answers to ``requests`` as if all processes' rows were in one, for this process's rows.

    Args:
        shard: this process's place.
        backend: what answers them once the keys are gathered.
        requests: about this process's rows; the same on every process, in the same order.
    """
    parts = [_directions(request) for request in requests]
    spread = _Spread(shard, [part for group in parts for part in group])
    answers = iter(backend.evaluate([spread.request(part) for group in parts for part in group]))
    found = [[next(answers) for _ in group] for group in parts]
    _sum_over_processes(shard, requests, found)
    return [_joined(group) for group in found]


def _directions(request: Request) -> list[Request]:
    """``request``, or one for each direction: a process has all keys for its queries, but not all rows for its keys."""
    if isinstance(request, CrossEntropyGrad) and request.both:
        relation = request.relation
        return [CrossEntropyGrad(relation), CrossEntropyGrad(Relation(relation.keys, relation.queries, relation.scale))]
    return [request]


class _Spread:
    """Gathers the keys that requests read, all at once, and puts them in the place of this process's.

    Relations between the same rows become one: backends share work by identity. Of constant copies nothing is gathered,
    they are made of what they are copies of.
    """

    def __init__(self, shard: Shard, requests: Sequence[Request]) -> None:
        self._shard = shard
        self._relations: dict[tuple[int, int, int], Relation] = {}
        read = [relation.like or relation for request in requests for relation in relations_in(request)]
        keys = list({id(relation.keys): relation.keys for relation in read}.values())
        whole = columns.gather(shard, [rows.values for rows in keys]) if keys else []
        self._whole = {id(rows): rows_of(values, rows.dtype) for rows, values in zip(keys, whole, strict=True)}

    def request(self, request: Request) -> Request:
        """``request`` with everybody's keys."""
        if isinstance(request, (KL, SoftCrossEntropy)):
            return type(request)(self._relation(request.student), self._relation(request.teacher))
        if isinstance(request, SigmoidCrossEntropy):
            teacher = None if request.teacher is None else self._relation(request.teacher)
            return SigmoidCrossEntropy(self._relation(request.relation), request.bias, teacher, request.teacher_bias)
        if isinstance(request, JensenShannon):
            return JensenShannon([self._relation(relation) for relation in request.relations], request.weights)
        if isinstance(request, (CrossEntropy, CrossEntropyGrad)):
            return type(request)(self._relation(request.relation))
        return request

    def _relation(self, relation: Relation) -> Relation:
        key = id(relation.queries), id(relation.keys), id(relation.scale)
        if key not in self._relations and relation.like is not None:
            self._relations[key] = self._relation(relation.like).constant()
        elif key not in self._relations:
            first = self._shard.rank * relation.shape[0]
            self._relations[key] = Relation(relation.queries, self._whole[id(relation.keys)], relation.scale, first)
        return self._relations[key]


def _sum_over_processes(shard: Shard, requests: Sequence[Request], found: list[list[Any]]) -> None:
    """Make of the gradients that were answered those of the mean over all rows, for this process's rows."""
    places = [
        (i, j)
        for i, request in enumerate(requests)
        if isinstance(request, CrossEntropyGrad)
        for j in range(len(found[i]))
    ]
    if not places:
        return
    own = columns.reduce(shard, [found[i][j][1] for i, j in places])
    for (i, j), keys in zip(places, own, strict=True):
        found[i][j] = (found[i][j][0] / shard.size, keys / shard.size)


def _joined(answers: list[Any]) -> Any:
    """One answer from those of a request's directions: their mean, the second one's sides swapped."""
    if len(answers) == 1:
        return answers[0]
    (queries, keys), (other_keys, other_queries) = answers
    return (queries + other_queries) / 2, (keys + other_keys) / 2
