"""The size of a tile is a matter of memory and speed, never of the result: ragged tiles and single numbers too."""

from __future__ import annotations

from functools import cache

import torch

from kdlosses import backends
from tests.backends.cases import EVERY, MIXED, NAMES, SAME, VARIANTS, Case
from tests.backends.subjects import KeepsTiles, Subject
from tests.grid import grid
from tests.running import Outcome, assert_same

# Five pairs: a tile for each number, two and three whole tiles with a ragged last one, exactly one tile, and too large.
SIZES = (1, 2, 3, 5, 9)
CASES = {(name, variant): Case(name, SAME, variant) for name in NAMES for variant in VARIANTS}
CASES |= {(name, "mixed-widths"): Case(name, MIXED) for name in NAMES}
CASES |= {("every-term", kind): Case("clip_kd", SAME, kind, masked=True, weights=EVERY) for kind in VARIANTS}
AXES = {"name": [*NAMES, "every-term"], "kind": [*VARIANTS, "mixed-widths"]}


def possible(name: str, kind: str, **_: object) -> bool:
    return (name, kind) in CASES


@cache
def whole(case: tuple[str, str], dtype: torch.dtype) -> Outcome:
    return CASES[case].outcome(Subject(KeepsTiles(None), "cpu", dtype))


def assert_nearly_bitwise(got: Outcome, wanted: Outcome, size: int) -> None:
    assert torch.allclose(got.value, wanted.value, rtol=1e-12, atol=0), size
    for key, gradient in wanted.grads.items():
        assert (got.grads[key] is None) == (gradient is None), key
        if gradient is not None:
            bound = 1e-12 * gradient.abs().max().item()
            assert torch.allclose(got.grads[key], gradient, rtol=1e-12, atol=bound), (key, size)


@grid((), possible, **AXES, tiles=["made-again", "kept"])
def test_in_float64_the_result_does_not_depend_on_it(name, kind, tiles):
    for size in SIZES:
        backend = KeepsTiles(size) if tiles == "kept" else backends.create("chunked", chunk_size=size)
        found = CASES[name, kind].outcome(Subject(backend, "cpu", torch.float64))
        assert_nearly_bitwise(found, whole((name, kind), torch.float64), size)


@grid((), possible, **AXES)
def test_in_float32_the_result_does_not_depend_on_it_beyond_rounding(name, kind):
    for size in SIZES:
        found = CASES[name, kind].outcome(Subject(backends.create("chunked", chunk_size=size), "cpu", torch.float32))
        assert_same(found, whole((name, kind), torch.float32), torch.float32)
