"""Options of terms: what a term may be told beside its weight, and what makes that wrong."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

from kdlosses.checks import check_known
from kdlosses.registry import available_terms, get_term
from kdlosses.term import Term

_EXAMPLE = '{"affinity": {"teacher_scale": 100.0}}'

Options = Mapping[str, Mapping[str, Any]]


def check_options(options: Options | None, terms: Mapping[str, Term]) -> Options:
    """``options``, or none at all, once they are of terms that are there.

    Args:
        options: ``{term: {option: value}}``.
        terms: those with a weight, zero included, by their names in the sum.

    Raises:
        ValueError: for something else, or a term that is unknown, has no weight or takes no options.
    """
    given = {} if options is None else options
    if not isinstance(given, Mapping):
        raise ValueError(f"options must map terms to their options, as in {_EXAMPLE}, got {type(given).__name__}")
    for name, values in given.items():
        term = terms[name] if name in terms else get_term(name)
        if not isinstance(values, Mapping):
            got = type(values).__name__
            raise ValueError(f"options of {name!r} must map names to values, as in {_EXAMPLE}, got {got}")
        if values and not term.options:
            others = ", ".join(other for other in available_terms() if get_term(other).options)
            raise ValueError(
                f"term {name!r} takes no options, got {', '.join(map(repr, values))}; those that do: {others}"
            )
        if name not in terms:
            raise ValueError(
                f"options name {name!r}, which has no weight; add it to the weights or leave its options out"
            )
    return given


def resolved(name: str, term: Term, given: Mapping[str, Any]) -> dict[str, Any]:
    """A value for every option of ``term``, its default for those that are not given.

    Args:
        name: of the term in its sum, for messages.
        term: whose ``options`` say what there is.
        given: values by option.

    Raises:
        ValueError: for an unknown option or a value that is not of its kind.
    """
    for option in given:
        check_known(f"option of term {name!r}", option, term.options)
    found = {
        option: _checked(f"option {option} of term {name!r}", default, given.get(option, default))
        for option, default in term.options.items()
    }
    term.check(found)
    return found


def _checked(what: str, default: Any, value: Any) -> Any:
    """``value``, of the kind that ``default`` tells."""
    if isinstance(default, tuple):
        return default[0] if value is default else _choice(what, default, value)
    if isinstance(default, Mapping):
        return _parts(what, default, value)
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise ValueError(f"{what} must be True or False, got {value!r}")
        return value
    number = _number(value)
    if default is None:
        if value is not None and not number > 0:
            raise ValueError(f"{what} must be a finite number above zero, or None for the model's own, got {value!r}")
        return None if value is None else number
    if math.isnan(number):
        raise ValueError(f"{what} must be a finite number, got {value!r}")
    if isinstance(default, int):
        if number < 0 or number != int(number):
            raise ValueError(f"{what} must be a whole number, zero or more, got {value!r}")
        return int(number)
    return number


def _choice(what: str, choices: tuple[Any, ...], value: Any) -> Any:
    if not any(value is one or (isinstance(value, str) and value == one) for one in choices):
        raise ValueError(f"{what} must be one of {', '.join(map(repr, choices))}, got {value!r}")
    return value


def _parts(what: str, default: Mapping[str, float], value: Any) -> dict[str, float]:
    """Weights by part, of a mapping or of a list of parts, which have their default weights."""
    if not isinstance(value, (Mapping, list, tuple)) or not value:
        raise ValueError(f"{what} must name some of {', '.join(default)}, or map them to weights, got {value!r}")
    for part in value:
        check_known(f"part in {what}", part, default)
    weights = value if isinstance(value, Mapping) else {part: default[part] for part in value}
    for part, weight in weights.items():
        if not _number(weight) >= 0:
            raise ValueError(f"weight of {part} in {what} must be a finite number, zero or more, got {weight!r}")
    return {part: float(weight) for part, weight in weights.items()}


def _number(value: Any) -> float:
    """``value`` as a float; NaN where it is no finite number."""
    number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    return number if math.isfinite(number) else math.nan
