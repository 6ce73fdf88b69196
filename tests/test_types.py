"""What the annotations promise to a user's type checker, checked by mypy itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import kdlosses

ROOT = Path(kdlosses.__file__).parents[1]


@pytest.mark.slow  # mypy reads torch for half a minute where `make lint` has left no cache
def test_user_code():
    command = [sys.executable, "-m", "mypy", "tests/typing/user_code.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no issues found in 1 source file" in done.stdout
