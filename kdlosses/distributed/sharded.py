"""Requests about all processes' rows, answered for the rows of this one.

A relation of a loss is between this process's rows. Here its keys become everybody's, so that each process computes its
own rows of the whole matrix and no work is done twice. No loss and no backend knows of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from weakref import WeakSet

import torch
from torch import Tensor, nn

from kdlosses.backends.contract import Backend
from kdlosses.distributed import columns
from kdlosses.distributed.agreement import agree
from kdlosses.distributed.parameters import check_equal
from kdlosses.distributed.shard import Shard
from kdlosses.relation import Relation
from kdlosses.requests import Request
from kdlosses.rows import Rows, rows_of

_T = TypeVar("_T")
# Modules whose parameters this process has held against the others'.
_compared: WeakSet[nn.Module] = WeakSet()


@dataclass(frozen=True)
class Sharded:
    """The rows of all processes of a group, of which this one has a part."""

    shard: Shard

    # Waiting for other processes is not something that a graph can hold.
    @torch.compiler.disable  # type: ignore[untyped-decorator]  # torch has no types for it
    def run(self, compute: Callable[..., _T], *arguments: Any) -> _T:
        """See `Distribution`."""
        return compute(*arguments)

    def inputs(self, module: nn.Module, read: Callable[[], _T], describe: Callable[[_T], Mapping[str, str]]) -> _T:
        """See `Distribution`.

        Raises:
            ValueError: on every process, where one has failed or differs.
        """
        found, compare = agree(self.shard, read, describe, module not in _compared)
        # Once for each module, as it costs a broadcast for each parameter; any process that has yet to makes all do it.
        if compare:
            check_equal(self.shard, module)
        _compared.add(module)
        return found

    def evaluate(self, backend: Backend, requests: Sequence[Request]) -> list[Any]:
        """See `Distribution`."""
        return evaluate(self.shard, backend, requests)

    def mean(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """See `Distribution`."""
        # Stacked, so that one collective carries all of them.
        averages = columns.mean(self.shard, torch.stack(list(values.values())))
        return dict(zip(values, averages.unbind(), strict=True))

    def gather(self, constants: Sequence[Tensor]) -> list[Tensor]:
        """See `Distribution`."""
        with torch.no_grad():
            return columns.gather(self.shard, [tensor.detach() for tensor in constants])


def evaluate(shard: Shard, backend: Backend, requests: Sequence[Request]) -> list[Any]:
    """The answers to ``requests`` as if all processes' rows were in one, for this process's rows.

    Args:
        shard: this process's place.
        backend: what answers them once the keys are gathered.
        requests: about this process's rows; the same on every process, in the same order.
    """
    parts = [request.directions() for request in requests]
    spread = _Spread(shard, [part for group in parts for part in group])
    answers = iter(backend.evaluate([spread.request(part) for group in parts for part in group]))
    found = [[next(answers) for _ in group] for group in parts]
    _sum_over_processes(shard, requests, found)
    return [_joined(group) for group in found]


class _Spread:
    """Gathers the keys that requests read, all at once, and puts them in the place of this process's.

    Relations between the same rows become one: backends share work by identity. Of constant copies nothing is gathered,
    they are made of what they are copies of.
    """

    def __init__(self, shard: Shard, requests: Sequence[Request]) -> None:
        self._shard = shard
        self._relations: dict[tuple[int, int, int, str], Relation] = {}
        read = [relation.like or relation for request in requests for relation in request.relations()]
        gathered = (_shared(relation.keys) for relation in read if not relation.keys.everywhere)
        keys = list({id(rows): rows for rows in gathered}.values())
        # A loss has one set of ids, which all its rows carry.
        groups = [rows.groups[:, None] for rows in keys[:1] if rows.groups is not None]
        whole = columns.gather(shard, [*(rows.values for rows in keys), *groups]) if keys else []
        ids = whole.pop().squeeze(1) if groups else None
        self._whole = {
            id(rows): rows_of(values, rows.dtype, groups=ids) for rows, values in zip(keys, whole, strict=True)
        }

    def request(self, request: Request) -> Request:
        """``request`` with everybody's keys."""
        return request.mapped(self._relation)

    def _relation(self, relation: Relation) -> Relation:
        key = id(relation.queries), id(relation.keys), id(relation.scale), relation.diagonal
        if key not in self._relations and relation.like is not None:
            self._relations[key] = self._relation(relation.like).constant()
        elif key not in self._relations:
            first = self._shard.rank * relation.shape[0]
            keys = self._all(relation.keys)
            self._relations[key] = Relation(relation.queries, keys, relation.scale, first, diagonal=relation.diagonal)
        return self._relations[key]

    def _all(self, keys: Rows) -> Rows:
        if keys.everywhere:
            return keys
        if id(keys) not in self._whole and keys.parts is not None:
            self._whole[id(keys)] = self._whole[id(keys.parts[0])].extended(keys.parts[1].values)
        return self._whole[id(keys)]


def _shared(keys: Rows) -> Rows:
    """Those of ``keys`` of which each process has a part: all but constant ones."""
    return keys if keys.parts is None else keys.parts[0]


def _sum_over_processes(shard: Shard, requests: Sequence[Request], found: list[list[Any]]) -> None:
    """Make of the gradients that were answered those of the mean over all rows, for this process's rows."""
    places = [(i, j) for i, request in enumerate(requests) if request.answers_keys for j in range(len(found[i]))]
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
