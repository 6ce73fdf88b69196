"""The terms of a sum: which term stands behind each name, with which options and weight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from kdlosses.options import Options, check_options, resolved
from kdlosses.registry import available_terms, get_term
from kdlosses.term import Term
from kdlosses.weights import check_weights

_EXAMPLE = '{"images": {"loss": "affinity", "teacher_scale": 50.0}}'

Terms = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Entry:
    """One term of a sum.

    Args:
        weight: above zero.
        term: what is computed.
        options: a value for each of the term's.

    Attributes:
        needs: what the term reads with these options.
        fixed: the options that may not be set between steps.
    """

    weight: float
    term: Term
    options: Mapping[str, Any]
    needs: frozenset[str] = field(init=False)
    fixed: Mapping[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        # Once: a compiler that met this within a call would look into the facts of the term.
        object.__setattr__(self, "needs", self.term.needs_of(self.options))
        fixed = {option: value for option, value in self.options.items() if option not in self.term.scheduled}
        object.__setattr__(self, "fixed", fixed)

    @property
    def towers(self) -> frozenset[str]:
        """See `Term.towers`."""
        return self.term.towers(self.options)

    def scheduled(self) -> dict[str, Tensor]:
        """The options that may be set between steps, as numbers that a compiler does not take for constants."""
        return {
            option: torch.tensor(self.options[option], dtype=torch.float64, device="cpu")
            for option in self.term.scheduled
        }


def entries_of(
    weights: Mapping[str, float], options: Options | None, terms: Terms | None, variant: str
) -> dict[str, Entry]:
    """The terms with a weight above zero, by the names that they have in the weights.

    Args:
        weights: ``{name: weight}``; a name is a registered term's, or one of ``terms``.
        options: ``{name: {option: value}}``.
        terms: ``{name: {"loss": term, option: value, ...}}``, so that a term may stand in a sum more than once.
        variant: ``"paper"`` or ``"released"``.

    Raises:
        ValueError: for whatever of these is wrong.
    """
    own = _check_terms(terms)
    known = check_weights(weights, variant, {name: get_term(one["loss"], "loss") for name, one in own.items()})
    for name in own:
        if name not in known:
            raise ValueError(f"terms define {name!r}, which has no weight; add it to the weights or leave it out")
    given = check_options(options, known)
    found = {}
    for name, weight in weights.items():
        if weight:
            told = {key: value for key, value in own.get(name, {}).items() if key != "loss"}
            _check_doubled(name, told, given.get(name, {}))
            values = resolved(name, known[name], {**told, **given.get(name, {})})
            found[name] = Entry(float(weight), known[name], values)
    return found


def _check_terms(terms: Terms | None) -> Terms:
    given = {} if terms is None else terms
    if not isinstance(given, Mapping):
        raise ValueError(f"terms must map names of your own to terms, as in {_EXAMPLE}, got {type(given).__name__}")
    for name, one in given.items():
        if not isinstance(name, str) or not name.isidentifier():
            raise ValueError(f"a name in terms must be a word of letters, digits and underscores, got {name!r}")
        if name in available_terms():
            raise ValueError(f"terms define {name!r}, which is the name of a loss; choose another name")
        if not isinstance(one, Mapping) or "loss" not in one:
            raise ValueError(f"terms[{name!r}] must have the key 'loss' and options, as in {_EXAMPLE}, got {one!r}")
    return given


def _check_doubled(name: str, told: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    for option in given:
        if option in told:
            raise ValueError(f"option {option} of term {name!r} stands in terms and in options; leave one out")
