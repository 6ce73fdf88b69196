"""Worlds of two and of four processes, started once for all workers of a test run."""

from __future__ import annotations

import fcntl
import os
from functools import cache
from pathlib import Path

import pytest
import torch

from tests.distributed.world import Results, start


@cache
def _results(size: int, slow: bool, folder: Path) -> Results | str:
    """The results, or why there are none, so that a world that fails is not started again by every test."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "results.pt"
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # under xdist one worker starts the world, the others wait for what it finds
        if not file.exists():
            try:
                found: Results | str = start(size, slow, folder)
            except Exception as failure:
                found = str(failure)
            torch.save(found, file)
    return torch.load(file, weights_only=False)


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory):
    """`results(size)`: what every fast job gave on a world of that many processes; `results(size, True)`: slow ones."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def of_world(size: int, slow: bool = False) -> Results:
        found = _results(size, slow, base / f"world-{size}{'-slow' * slow}")
        return pytest.fail(found) if isinstance(found, str) else found

    return of_world
