"""Options of loss terms in a recipe: whether a value is of the kind that the option's default tells."""

import math
from collections.abc import Mapping
from typing import Any


def what_is_wrong(default: Any, value: Any) -> str | None:
    """What a value must be, in words that follow the key; None where it is.

    Args:
        default: of the option, as its term declares it.
        value: of the recipe.
    """
    if isinstance(default, tuple):
        known = ", ".join("null" if one is None else str(one).lower() for one in default)
        fits = any(value is one or (isinstance(value, str) and value == one) for one in default)
        return None if fits else f"must be one of {known}, got {value!r}"
    if isinstance(default, Mapping):
        return _wrong_parts(default, value)
    if isinstance(default, bool):
        return None if isinstance(value, bool) else f"must be true or false, got {value!r}"
    if default is None:
        fits = value is None or (_is_number(value) and value > 0)
        return None if fits else f"must be above 0, or null for the model's own scale, got {value!r}"
    if isinstance(default, int):
        fits = _is_number(value) and value >= 0 and value == int(value)
        return None if fits else f"must be a whole number, 0 or more, got {value!r}"
    return None if _is_number(value) else f"must be a finite number, got {value!r}"


def _wrong_parts(default: Mapping[str, float], value: Any) -> str | None:
    known = ", ".join(default)
    if not isinstance(value, Mapping | list | tuple) or not value or not set(value) <= set(default):
        return f"must be a list of some of {known}, or map them to weights, got {value!r}"
    weights = value.values() if isinstance(value, Mapping) else ()
    if not all(_is_number(weight) and weight >= 0 for weight in weights):
        return f"must have weights of 0 or more, got {value!r}"
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
