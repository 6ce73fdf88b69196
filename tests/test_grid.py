"""The fast tier's selection of a grid holds what it promises."""

from __future__ import annotations

from itertools import product

import pytest

from tests.grid import covering, grid

LOSSES, BACKENDS, VARIANTS = [f"loss{i}" for i in range(14)], list("abcde"), ["paper", "released"]


def fast(mark: pytest.MarkDecorator) -> set[tuple]:
    return {param.values for param in mark.args[1] if not param.marks}


def test_every_value_of_every_axis_is_fast_and_most_combinations_are_not():
    mark = grid(name=LOSSES, label=BACKENDS, variant=VARIANTS)
    found = fast(mark)
    assert len(mark.args[1]) == 140
    assert [{values[axis] for values in found} for axis in range(3)] == [set(LOSSES), set(BACKENDS), set(VARIANTS)]
    assert len(found) < 20


def test_axes_that_belong_together_are_all_combined():
    found = fast(grid(["name label", "name variant"], name=LOSSES, label=BACKENDS, variant=VARIANTS))
    assert {values[:2] for values in found} == set(product(LOSSES, BACKENDS))
    assert {values[::2] for values in found} == set(product(LOSSES, VARIANTS))
    assert len(found) < 80


def test_what_is_impossible_is_left_out():
    mark = grid(name=LOSSES, variant=VARIANTS, where=lambda name, variant: (name, variant) != ("loss3", "released"))
    assert len(mark.args[1]) == 27
    assert ("loss3", "paper") in fast(mark)


@pytest.mark.parametrize("count", [1, 2, 3, 10, 100])
def test_an_axis_alone_is_fast_as_a_whole(count):
    assert covering([{"n": n} for n in range(count)], [["n"]]) == set(range(count))
