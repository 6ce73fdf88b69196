"""The size of a tile is a matter of memory and speed, never of the result: ragged tiles and single numbers too."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from kdlosses import backends
from tests.backends.cases import EVERY, MIXED, NAMES, SAME, VARIANTS, Case
from tests.backends.subjects import KeepsTiles, Subject
from tests.running import Outcome, assert_same

# Five pairs: a tile for each number, two and three whole tiles with a ragged last one, exactly one tile, and too large.
SIZES = (1, 2, 3, 5, 9)
CASES = {f"{name}-{variant}": Case(name, SAME, variant) for name in NAMES for variant in VARIANTS}
CASES |= {f"{name}-mixed": Case(name, MIXED) for name in NAMES}
CASES["every-term"] = Case("clip_kd", SAME, masked=True, weights=EVERY)
each_case = pytest.mark.parametrize("case", CASES)


@cache
def whole(case: str, dtype: torch.dtype) -> Outcome:
    return CASES[case].outcome(Subject(KeepsTiles(None), "cpu", dtype))


def assert_nearly_bitwise(got: Outcome, wanted: Outcome, size: int) -> None:
    assert torch.allclose(got.value, wanted.value, rtol=1e-12, atol=0), size
    for key, gradient in wanted.grads.items():
        assert (got.grads[key] is None) == (gradient is None), key
        if gradient is not None:
            bound = 1e-12 * gradient.abs().max().item()
            assert torch.allclose(got.grads[key], gradient, rtol=1e-12, atol=bound), (key, size)


@each_case
@pytest.mark.parametrize("keeps", [False, True], ids=["made-again", "kept"])
def test_in_float64_the_result_does_not_depend_on_it(case, keeps):
    for size in SIZES:
        backend = KeepsTiles(size) if keeps else backends.create("chunked", chunk_size=size)
        found = CASES[case].outcome(Subject(backend, "cpu", torch.float64))
        assert_nearly_bitwise(found, whole(case, torch.float64), size)


@each_case
def test_in_float32_the_result_does_not_depend_on_it_beyond_rounding(case):
    for size in SIZES:
        found = CASES[case].outcome(Subject(backends.create("chunked", chunk_size=size), "cpu", torch.float32))
        assert_same(found, whole(case, torch.float32), torch.float32)
