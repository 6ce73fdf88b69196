"""Plugins, seeds, the Hypothesis profiles and the golden files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    import torch

pytest_plugins = ["pytester", "tests.plugins.collector", "tests.plugins.processes", "tests.plugins.skips"]

GOLDEN = Path(__file__).parent / "golden"

# Derandomised: the same examples on every machine and every run. `--hypothesis-profile=thorough` searches wider.
_COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("ci", max_examples=12, derandomize=True, database=None, **_COMMON)
settings.register_profile("thorough", max_examples=300, **_COMMON)
settings.load_profile("ci")


def pytest_configure(config: pytest.Config) -> None:
    """What needs torch: not in the process that only hands tests out, whose workers would wait for its import."""
    if config.getoption("dist", "no") != "no" and not hasattr(config, "workerinput"):
        return
    import torch

    # Triton decides at its first import whether kernels are compiled or interpreted on the CPU.
    if not torch.cuda.is_available():
        os.environ.setdefault("TRITON_INTERPRET", "1")
    # Most tests of losses have no optimizer.
    config.addinivalue_line("filterwarnings", "ignore::kdlosses.UntrainedParametersWarning")


@pytest.fixture(autouse=True)
def _seed() -> None:
    import torch

    torch.manual_seed(0)


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """The released code's reference outputs."""
    return GOLDEN


@pytest.fixture(scope="session")
def read_golden(golden_dir: Path):
    """Read `released_<name>.npz`, or `<name>.npz`, as {key: float64 tensor}; text entries are left out."""

    import numpy as np
    import torch

    def read(name: str) -> dict[str, torch.Tensor]:
        file = name if name.endswith("_released") else f"released_{name}"
        with np.load(golden_dir / f"{file}.npz") as arrays:
            numeric = {key: arrays[key] for key in arrays.files if arrays[key].dtype.kind == "f"}
        return {key: torch.from_numpy(np.asarray(value)) for key, value in numeric.items()}

    return read
