"""Options of terms: what a term may be told beside its weight, and what makes that wrong."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

from kdlosses.checks import check_known
from kdlosses.registry import available_terms, get_term

_EXAMPLE = '{"affinity": {"teacher_scale": 100.0}}'

Options = Mapping[str, Mapping[str, float | None]]


def check_options(options: Options | None, weights: Mapping[str, float]) -> dict[str, dict[str, float | None]]:
    """The options of every term in use that takes any; one that is not given is None.

    Args:
        options: ``{term: {option: value}}``, or None for none. All options there are today are logit scales.
        weights: ``{term: weight}``; a term of weight zero may have options, and they are left out with it.

    Raises:
        ValueError: for an unknown term or option, a term without a weight, or a value that is not a number above zero.
    """
    given = {} if options is None else options
    if not isinstance(given, Mapping):
        raise ValueError(f"options must map terms to their options, as in {_EXAMPLE}, got {type(given).__name__}")
    for term, values in given.items():
        _check_term(term, values, weights)
    active = [term for term, weight in weights.items() if weight and get_term(term).options]
    return {term: {name: _number(given.get(term, {}).get(name)) for name in get_term(term).options} for term in active}


def _check_term(term: str, values: object, weights: Mapping[str, float]) -> None:
    known = get_term(term).options
    if not isinstance(values, Mapping):
        raise ValueError(f"options of {term!r} must map names to values, as in {_EXAMPLE}, got {type(values).__name__}")
    if values and not known:
        others = ", ".join(name for name in available_terms() if get_term(name).options)
        raise ValueError(f"term {term!r} takes no options, got {', '.join(map(repr, values))}; those that do: {others}")
    if term not in weights:
        raise ValueError(f"options name {term!r}, which has no weight; add it to the weights or leave its options out")
    for name, value in values.items():
        check_known(f"option of term {term!r}", name, known)
        _check_scale(f"option {name} of term {term!r}", value)


def _check_scale(name: str, value: object) -> None:
    number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    if value is not None and not (math.isfinite(number) and number > 0):
        raise ValueError(f"{name} must be a finite number above zero, or None for the model's own, got {value!r}")


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
