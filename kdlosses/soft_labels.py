"""More than one positive a row, and smoothed labels: what they add to the requests that know one positive.

Groups travel with the rows (`kdlosses.rows.Rows.groups`): columns whose pair is in the row's group are its positives.
Softmax terms need no matrix for them, as a cross-entropy is linear in its labels: with labels t and logits z,
``CE(t) = CE(own pair) + z_ii - sum_j t_ij z_ij``, and that sum is the query times one mean of keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kdlosses.relation import Relation
from kdlosses.requests import CrossEntropy, Request, mean_of_directions, pairs_of_directions
from kdlosses.rows import Rows, autocast_device
from kdlosses.term import Computation
from kdlosses.tiles.blocks import blocks


def labelled(relations: tuple[Relation, Relation], smoothing: float) -> Computation:
    """The mean cross-entropy of ``relations`` with each row's positives, and with smoothed labels.

    Args:
        relations: of both directions.
        smoothing: e of the labels ``(1 - e) / k`` on each of k positives plus ``e / M`` on all M columns.
    """
    if not smoothing and all(relation.keys.groups is None for relation in relations):
        return Computation([CrossEntropy(relation) for relation in relations], mean_of_directions)
    relations = _widened(relations)
    entropies = [CrossEntropy(relation) for relation in relations]
    count, gaps = len(relations), [LabelGap(relation, smoothing) for relation in relations]

    def summed(answers: Sequence[Any]) -> list[Tensor]:
        return [own + gap for own, gap in zip(answers[:count], answers[count:], strict=True)]

    return Computation(
        [*entropies, *gaps],
        lambda answers: mean_of_directions(summed(answers)),
        lambda answers: pairs_of_directions(summed(answers)),
    )


def _widened(relations: tuple[Relation, Relation]) -> tuple[Relation, Relation]:
    """With rows that learn in the computation's dtype: of 16 bits, two requests' gradients would each be rounded."""
    first, second = relations
    known: list[tuple[Rows, Rows]] = []

    def wide(rows: Rows) -> Rows:
        if rows.values.dtype == rows.dtype or not rows.values.requires_grad:
            return rows
        for narrow, found in known:
            if narrow is rows:
                return found
        known.append((rows, replace(rows, values=rows.values.to(rows.dtype))))
        return known[-1][1]

    def changed(relation: Relation) -> Relation:
        return replace(relation, queries=wide(relation.queries), keys=wide(relation.keys))

    if all(wide(rows) is rows for relation in relations for rows in (relation.queries, relation.keys)):
        return relations
    changed_first = changed(first)
    return changed_first, changed_first.transposed() if second.source is first else changed(second)


def check_smoothing(term: str, value: float) -> None:
    """Raise ValueError unless ``value`` is from 0 to below 1."""
    if not 0 <= value < 1:
        raise ValueError(f"option label_smoothing of term {term!r} must be at least 0 and below 1, got {value!r}")


@dataclass(eq=False)
class LabelGap(Request):
    """``[N]``: each row's logit at its own pair less its mean logit under its labels: ``z_ii - sum_j t_ij z_ij``.

    Added to `CrossEntropy` it puts the labels t in the place of the own pair: ``(1 - smoothing) / k`` on each of the k
    columns of the row's group plus ``smoothing / M`` on all M. Without smoothing it is exactly 0 for a row that is
    alone in its group.
    """

    relation: Relation
    smoothing: float = 0.0

    def answer(self) -> Tensor:
        """See `Request`."""
        logits = self.relation.matrix()
        positives = same_group(self.relation).to(logits.dtype)
        labels = positives / positives.sum(1, keepdim=True)
        labels = (1 - self.smoothing) * labels + self.smoothing / logits.shape[1]
        return logits.diagonal(self.relation.offset) - (labels * logits).sum(1)

    def solve(self, size: int | None) -> Tensor:
        """The same in O(M D): a row's mean logit is its query times the mean of its group's keys."""
        relation, first = self.relation, self.relation.offset
        keys = relation.keys.normalized()
        means = keys if relation.keys.groups is None else _means(keys, relation.keys.groups)
        own = slice(first, first + relation.shape[0])
        wanted = means[own]
        if self.smoothing:
            wanted = (1 - self.smoothing) * wanted + self.smoothing * keys.mean(0)
        return relation.scale * (relation.queries.normalized() * (keys[own] - wanted)).sum(1)

    def relations(self) -> list[Relation]:
        """See `Request`."""
        return [self.relation]


@dataclass(eq=False)
class GroupSigmoidCrossEntropy(Request):
    """``[N]``: each row's sum, over all columns, of the binary cross-entropy of ``sigmoid(z)``, 1 at its positives.

    ``z`` is the relation plus ``bias``. The k columns of the row's group have label 1 and, with ``mean``, weight 1/k.
    """

    relation: Relation
    bias: Tensor
    mean: bool = True

    def answer(self) -> Tensor:
        """See `Request`."""
        logits, positives = self.relation.matrix() + self.bias, same_group(self.relation)
        share = positives.sum(1, keepdim=True).to(logits.dtype).reciprocal() if self.mean else 1.0
        return torch.where(positives, share * F.softplus(-logits), F.softplus(logits)).sum(1)

    def solve(self, size: int | None) -> Tensor:
        """The same in tiles of which none is kept; ids are compared within a tile."""
        relation = self.relation
        own = slice(relation.offset, relation.offset + relation.shape[0])
        groups = _groups(relation)
        shares = _sizes(groups)[own].to(self.bias.dtype).reciprocal() if self.mean else self.bias.new_ones(()).expand(1)
        queries, keys = relation.scale * relation.queries.normalized(), relation.keys.normalized()
        found: Tensor = _Sigmoids.apply(queries, keys, self.bias, groups[own], groups, shares, size)
        return found

    def relations(self) -> list[Relation]:
        """See `Request`."""
        return [self.relation]

    def kept(self) -> list[Relation]:
        """See `Request`."""
        return []


def same_group(relation: Relation) -> Tensor:
    """``[N, M]``, for definitions: whether the column's pair is in the row's group."""
    groups = _groups(relation)
    own = groups[relation.offset : relation.offset + relation.shape[0]]
    return own[:, None] == groups


def _groups(relation: Relation) -> Tensor:
    groups = relation.keys.groups
    return torch.arange(relation.shape[1], device=relation.keys.values.device) if groups is None else groups


def _numbered(groups: Tensor) -> Tensor:
    """The groups by number, from 0 and without gaps; nothing here has a shape that depends on the ids."""
    ids, order = groups.sort()
    first = torch.cat([ids.new_zeros(1), (ids[1:] != ids[:-1]).to(ids.dtype)])
    return torch.zeros_like(order).scatter(0, order, first.cumsum(0))


def _sizes(groups: Tensor) -> Tensor:
    """``[M]``: how many rows there are in each row's group."""
    numbers = _numbered(groups)
    return torch.zeros_like(numbers).index_add(0, numbers, torch.ones_like(numbers))[numbers]


def _means(keys: Tensor, groups: Tensor) -> Tensor:
    """``[M, D]``: the mean of the keys of each row's group; the key itself, to the last bit, where it is alone."""
    numbers = _numbered(groups)
    sums = torch.zeros_like(keys).index_add(0, numbers, keys)[numbers]
    return sums / _sizes(groups)[:, None].to(keys.dtype)


class _Sigmoids(torch.autograd.Function):
    """Row sums of weighted binary cross-entropies, tile by tile, forward and back."""

    @staticmethod
    def forward(
        ctx: Any,
        queries: Tensor,
        keys: Tensor,
        bias: Tensor,
        own: Tensor,
        groups: Tensor,
        shares: Tensor,
        size: int | None,
    ) -> Tensor:
        ctx.save_for_backward(queries, keys, bias, own, groups, shares)
        ctx.size = size
        shares = shares.expand(queries.shape[0])
        parts = []
        for rows in blocks(queries.shape[0], size):
            total = queries.new_zeros(queries[rows].shape[0])
            for cols in blocks(keys.shape[0], size):
                logits = torch.addmm(bias, queries[rows], keys[cols].T)
                positives = own[rows, None] == groups[cols]
                # Of the sign that the label asks for: where it is right by far, the term is small and has its digits.
                terms = F.softplus(torch.where(positives, -logits, logits))
                total = total + torch.where(positives, shares[rows, None] * terms, terms).sum(1)
            parts.append(total)
        return torch.cat(parts)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Any, ...]:
        # bf16 is spaced 0.5 apart near a logit of 100, also where someone calls backward under autocast.
        with torch.autocast(autocast_device(upstream), enabled=False):
            return *_slopes(ctx.saved_tensors, upstream, ctx.size), None, None, None, None


def _slopes(saved: Sequence[Tensor], upstream: Tensor, size: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients for queries, keys and bias."""
    queries, keys, bias, own, groups, shares = saved
    shares, cols_of = shares.expand(queries.shape[0]), blocks(keys.shape[0], size)
    of_queries, of_keys, of_bias = [], [torch.zeros_like(keys[cols]) for cols in cols_of], torch.zeros_like(bias)
    for rows in blocks(queries.shape[0], size):
        total = torch.zeros_like(queries[rows])
        for number, cols in enumerate(cols_of):
            logits = torch.addmm(bias, queries[rows], keys[cols].T)
            positives = own[rows, None] == groups[cols]
            slopes = torch.where(positives, -shares[rows, None] * (-logits).sigmoid(), logits.sigmoid())
            slopes = slopes * upstream[rows, None]
            total = total + slopes @ keys[cols]
            of_keys[number] = of_keys[number] + slopes.T @ queries[rows]
            of_bias = of_bias + slopes.sum()
        of_queries.append(total)
    return torch.cat(of_queries), torch.cat(of_keys), of_bias
