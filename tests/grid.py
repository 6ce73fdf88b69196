"""Grids of parameters of which the fast tier runs a covering selection.

`@grid(name=NAMES, label=LABELS, variant=VARIANTS)` parametrizes a test over every combination and marks all but a few
`slow`. The few hold every value of every axis at least once; with `together=["name label"]` also every loss with every
backend. So the fast tier sees each thing work, and the full tier all of them with each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import product
from typing import Any

import pytest

Combination = dict[str, Any]


def grid(
    together: Sequence[str] = (),
    where: Callable[..., bool] | None = None,
    slow: Callable[..., bool] | None = None,
    **axes: Sequence[Any],
) -> pytest.MarkDecorator:
    """Parametrize over the product of ``axes``; what is not in `covering` is slow.

    Args:
        together: names of axes, separated by spaces, whose combinations are all in the fast tier.
        where: takes a combination's values by name and tells whether it is possible; by default all are.
        slow: tells of a combination whether it takes too long for the fast tier; by default none does.
        axes: values by name of the test's argument.
    """
    every = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]
    possible = [one for one in every if where is None or where(**one)]
    quick = [number for number, one in enumerate(possible) if slow is None or not slow(**one)]
    groups = [*(names.split() for names in together), *([name] for name in axes)]
    fast = {quick[number] for number in covering([possible[number] for number in quick], groups)}
    params = [
        pytest.param(
            *one.values(), id="-".join(map(_label, one.values())), marks=() if number in fast else pytest.mark.slow
        )
        for number, one in enumerate(possible)
    ]
    return pytest.mark.parametrize(list(axes), params)


def tiers(values: Iterable[Any], fast: Collection[Any]) -> list[Any]:
    """``values`` as parameters of a test; those that are not among the ``fast`` ones are slow."""
    return [pytest.param(value, marks=() if value in fast else pytest.mark.slow) for value in values]


def covering(combinations: Sequence[Combination], groups: Sequence[Sequence[str]]) -> set[int]:
    """Numbers of combinations that together hold all that any combination holds in each group of axes.

    They are taken as far apart as the golden ratio leads, so that the other axes are mixed too.
    """
    count = len(combinations)
    step = next(step for step in range(max(1, int(0.618 * count)), 2 * count + 2) if math.gcd(step, count) == 1)
    seen: set[tuple[Any, ...]] = set()
    chosen = set()
    for number in (step * turn % count for turn in range(count)):
        held = {(*group, *(_label(combinations[number][name]) for name in group)) for group in groups}
        if held - seen:
            chosen.add(number)
            seen |= held
    return chosen


def _label(value: object) -> str:
    if isinstance(value, (tuple, list)):
        return "+".join(map(_label, value))
    name = getattr(value, "__name__", None) or str(value)
    return name.removeprefix("torch.")
