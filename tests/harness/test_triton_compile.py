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
import json
from harness.bench.triton_compile import compile_all
from kdlosses.backends.triton.tuning import HOPPER, Tile
tiles = {key: Tile(64, 64, 32, 4, 2) for key in HOPPER}
print(json.dumps(list(compile_all("bfloat16", tiles))))
"""


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="the package triton is not installed")
def test_every_kernel_compiles_for_sm_90():
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, "-c", _SCRIPT], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout.splitlines()[-1])
    assert len(rows) == 9
    assert all(0 < row["registers"] <= 255 and row["spilled"] == 0 for row in rows)
    assert all(row["shared"] < 64 * 1024 for row in rows)


def test_an_interpreter_compiles_nothing(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with pytest.raises(UserError, match="TRITON_INTERPRET is set, so kernels are interpreted and not compiled"):
        next(compile_all())
