"""What a term hands over, held against what it must be: one sentence instead of a wrong number or an error of torch's.

Terms of this package are right by their tests; these are for everybody else's, in eager calls.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from kdlosses.relation import Relation
from kdlosses.requests import Request
from kdlosses.rows import Rows
from kdlosses.term import Computation, Term

_ROWS = "embeddings of the batch (embeddings.student.image, ..., or embeddings.rows(x) for a tensor [B, D] of its own)"
_tried: set[str] = set()


def check_computation(term: str, computation: Computation) -> None:
    """Raise ValueError unless all that ``computation`` compares are rows of the batch, as processes share those."""
    if torch.compiler.is_compiling():
        return
    if not isinstance(computation, Computation):
        raise ValueError(f"term {term!r}: compute must return a kdlosses.Computation, got {type(computation).__name__}")
    for request in computation.requests:
        if not isinstance(request, Request):
            raise ValueError(f"term {term!r} asks for {request!r}, which is not one of kdlosses.requests")
        for relation in request.relations():
            _check_relation(term, request, relation)
        if not request.relations():
            for rows in request.rows():
                _check_rows(term, "compares", rows)


def _check_relation(term: str, request: Request, relation: Relation) -> None:
    _check_rows(term, "has a relation whose queries are", relation.queries)
    keys = relation.keys
    constant = keys.everywhere or keys.parts is not None
    if constant and request.answers_keys:
        raise ValueError(f"term {term!r} asks for the gradient of a relation with constant keys, which has none")
    if keys.everywhere:
        if relation.diagonal != "none":
            raise ValueError(
                f"term {term!r} has a relation whose keys are constants alone, where no row has a positive: "
                'make it with diagonal="none"'
            )
    elif keys.parts is None:
        _check_rows(term, "has a relation whose keys are", keys)
    else:
        _check_rows(term, "has a relation whose keys begin with", keys.parts[0])


def _check_rows(term: str, what: str, rows: Rows) -> None:
    if not rows.of_batch:
        raise ValueError(
            f"term {term!r} {what} {len(rows.values)} rows of its own: with several processes nobody could tell which "
            f"of them each has; take {_ROWS}, and keys.extended(constants) for constant keys beside the batch's, "
            "embeddings.constant_rows(constants) for such keys alone"
        )


def finished(term: Term, computation: Computation, answers: Sequence[Any], twice: Callable[[], Computation]) -> Tensor:
    """The term's scalar.

    Args:
        term: whose it is.
        computation: what it asked for.
        answers: to its requests.
        twice: the computation of a batch that has every pair twice.

    Raises:
        ValueError: where its finish fails, returns something else, or at its first call shows that it is not a mean
            over rows.
    """
    if torch.compiler.is_compiling():
        return computation.finish(answers)
    found = _finish(term.name, computation, answers)
    if term.name not in _tried and _is_foreign(term) and type(found) is Tensor and not found.is_meta:
        with torch.no_grad():
            _check_all_read(term.name, computation, answers)
            _check_mean(found, _finish(term.name, twice(), [_twice(answer) for answer in answers]), term.name)
        _tried.add(term.name)
    return found


def by_pair(term: Term, computation: Computation, answers: Sequence[Any], mean: Tensor) -> Tensor:
    """``[B]``: the term's value of each pair, for ``reduction="none"``.

    Args:
        term: whose computation it is.
        computation: what it asked for.
        answers: to its requests.
        mean: the term's scalar.

    Raises:
        ValueError: where the term has no values by pair, or others than those whose mean is its scalar.
    """
    if computation.pairs is None:
        raise ValueError(
            f"term {term.name!r} has no value for each pair, so a loss with it cannot have reduction='none'; take "
            "reduction='mean', or give its Computation a third argument, pairs(answers) -> [B]"
        )
    found = computation.pairs(answers)
    if not torch.compiler.is_compiling() and _is_foreign(term):
        _check_pairs(term.name, found, mean)
    return found


def _check_pairs(term: str, found: Any, mean: Tensor) -> None:
    if not isinstance(found, Tensor) or found.ndim != 1:
        got = f"shape {list(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(f"term {term!r}: pairs must return a tensor [B], a value for each pair, got {got}")
    if not found.is_meta and mean.isfinite() and not torch.isclose(found.mean(), mean, rtol=1e-2, atol=1e-6):
        raise ValueError(
            f"term {term!r}: the mean of its pairs is {found.mean().item():g} and its finish returns {mean.item():g}; "
            "they must be equal"
        )


def _is_foreign(term: Term) -> bool:
    return type(term).__module__.partition(".")[0] != __package__


def _finish(term: str, computation: Computation, answers: Sequence[Any]) -> Tensor:
    try:
        found = computation.finish(answers)
    except (IndexError, ValueError, TypeError) as error:
        raise ValueError(
            f"term {term!r} cannot make a scalar of the answers to its {len(answers)} requests: {error}"
        ) from error
    if not isinstance(found, Tensor) or found.ndim:
        got = f"shape {list(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(f"term {term!r} must make a tensor without dimensions, a mean over rows, got {got}")
    return found


def _check_all_read(term: str, computation: Computation, answers: Sequence[Any]) -> None:
    watched = _Watched(answers)
    _finish(term, computation, watched)
    if watched.unread:
        read = len(answers) - len(watched.unread)
        raise ValueError(f"term {term!r} makes {len(answers)} requests and its finish reads {read} of the answers")


def _check_mean(found: Tensor, twice: Tensor, term: str) -> None:
    """A mean over rows is the same where every pair is there twice; a sum is not."""
    # The order of a sum changes, and 16-bit features leave few digits: a sum instead of a mean is a factor of two.
    if found.isfinite() and not torch.isclose(twice, found, rtol=1e-2, atol=1e-6):
        raise ValueError(
            f"term {term!r} is not a mean over rows: with every row twice it is {twice.item():g} instead of "
            f"{found.item():g}, and over several processes another number than over one; take the mean of what each "
            "row has by itself"
        )


def _twice(answer: Any) -> Any:
    return torch.cat([answer, answer]) if isinstance(answer, Tensor) else tuple(_twice(one) for one in answer)


class _Watched(Sequence[Any]):
    """Answers that remember which of them were read."""

    def __init__(self, answers: Sequence[Any]) -> None:
        self._answers = list(answers)
        self.unread = set(range(len(answers)))

    def __len__(self) -> int:
        return len(self._answers)

    def __getitem__(self, index: Any) -> Any:
        found = self._answers[index]
        numbers = range(len(self._answers))[index]
        self.unread -= set(numbers if isinstance(index, slice) else [numbers])
        return found
