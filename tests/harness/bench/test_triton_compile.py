"""Every kernel compiles for compute capability 9.0 without a GPU: the interpreter takes more than the compiler does."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys

import pytest

from harness.bench.triton_compile import compile_all
from harness.errors import UserError

# In a process of its own: here Triton may be the interpreter. Small tiles compile in seconds.
_SCRIPT = """
import json, sys
from harness.bench import triton_cases
from harness.bench.triton_compile import compile_all
from kdlosses.backends.triton.tuning import HOPPER, Tile
triton_cases.SIZE, triton_cases.WIDTH, triton_cases.TEACHER_WIDTH = map(int, sys.argv[1:])
tiles = {key: Tile(64, 64, 32, 4, 2) for key in HOPPER}
print(json.dumps(list(compile_all("bfloat16", tiles))))
"""


def compiled(*sizes: int) -> list[dict]:
    """Rows, columns and pairs; the student's width; the teacher's."""
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    command = [sys.executable, "-c", _SCRIPT, *map(str, sizes)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


has_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="the package triton is not installed"
)


@pytest.mark.slow
@has_triton
def test_every_kernel_compiles_for_sm_90():
    rows = compiled(8192, 512, 768)
    assert len(rows) == 14
    assert all(0 < row["registers"] <= 255 and row["spilled"] == 0 for row in rows)
    assert all(row["shared"] < 64 * 1024 for row in rows)


@pytest.mark.slow
@has_triton
@pytest.mark.parametrize("sizes", [(1, 1, 1), (33, 5, 7)])
def test_awkward_sizes_compile(sizes):
    """A size of 1 becomes a constant, one that 16 does not divide another kernel; the interpreter knows neither."""
    rows = compiled(*sizes)
    assert len(rows) == 14
    assert all(0 < row["registers"] <= 255 and row["shared"] < 64 * 1024 for row in rows)


@has_triton
def test_the_launches_are_those_of_the_table_of_tiles(monkeypatch):
    """Each stops where it asks for its tile, so nothing is compiled or run."""
    from harness.bench.triton_cases import LAUNCHES, PRODUCTS
    from kdlosses.backends.triton import tuning

    asked = set()

    def stop(kernel, kind, device):
        asked.add((kernel, kind))
        raise InterruptedError

    monkeypatch.setattr(tuning, "tile_for", stop)
    for launch in LAUNCHES.values():
        for product in PRODUCTS.values():
            with pytest.raises(InterruptedError):
                launch(product)
    assert asked == set(tuning.HOPPER)


def test_an_interpreter_compiles_nothing(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with pytest.raises(UserError, match="TRITON_INTERPRET is set, so kernels are interpreted and not compiled"):
        next(compile_all())
