"""Options of `make bench ARGS="..."`: the same words as `clipkd bench losses`."""

from __future__ import annotations

import pytest

DEFAULTS = {
    "loss": "all",
    "backend": "all",
    "batch": "256",
    "dim": "128",
    "dtype": "float32",
    "device": "auto",
    "baselines": "all",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("clipkd bench losses")
    for name, default in DEFAULTS.items():
        group.addoption(f"--bench-{name}", default=default, help=f"--{name} of clipkd bench losses ({default})")
