"""Teacher dropping: of several teachers each pair learns from a part, always from the one that it is furthest from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kdlosses.entries import Entry
from kdlosses.requests import add_up
from kdlosses.term import Computation, Term, split_answers


def can_drop(entry: Entry) -> bool:
    """Whether it is a sum over teachers, not a comparison with their average."""
    return bool(entry.needs & {"teacher", "aligned"}) and type(entry.term).mixed is Term.mixed


def dropped(
    term: Term, computations: Sequence[Computation], weights: Sequence[float], draws: Sequence[Tensor], share: float
) -> Computation:
    """``mean_i sum_k w_k [k kept for pair i] L_ik``: kept are the teacher of the largest L_ik and those drawn.

    Args:
        term: what is computed.
        computations: for each teacher.
        weights: of each teacher.
        draws: ``[B]`` for each teacher, numbers from 0 to 1.
        share: of the teachers' pairs that are dropped, unless theirs is the largest.

    Raises:
        ValueError: where the term has no values by pair.
    """
    functions = [one.pairs for one in computations if one.pairs is not None]
    if len(functions) < len(computations):
        raise ValueError(
            f"term {term.name!r} has no value for each pair, by which teacher_dropping chooses; leave one of them out, "
            "or give its Computation a third argument, pairs(answers) -> [B]"
        )
    requests = [request for one in computations for request in one.requests]

    def by_pair(answers: Sequence[Any]) -> Tensor:
        own = split_answers(computations, answers)
        values = [pairs(one) for pairs, one in zip(functions, own, strict=True)]
        largest = torch.stack(values).detach().argmax(0)
        parts = []
        for number, (value, weight, drawn) in enumerate(zip(values, weights, draws, strict=True)):
            # Not a product with the mask: a teacher's infinity would stay one.
            parts.append(weight * value.where((drawn >= share) | (largest == number), 0.0))
        return add_up(parts)

    return Computation(requests, lambda answers: by_pair(answers).mean(), by_pair)
