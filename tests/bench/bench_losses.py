"""The cases of `clipkd bench losses` under pytest-benchmark (`make bench`); `make test` does not find them here."""

from __future__ import annotations

import pytest
import torch

from harness.bench.losses.cases import Case
from harness.bench.losses.choose import choose_device
from harness.bench.losses.command import Choice, make_cases
from harness.bench.losses.implementations import Setup, make_setup
from harness.bench.losses.memory import measure_peaks, release
from harness.bench.losses.timing import Matmul, make_clock, measure_times
from harness.errors import UserError
from tests.bench.conftest import DEFAULTS

ROUNDS = 10


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    words = {name: metafunc.config.getoption(f"--bench-{name}") for name in DEFAULTS}
    try:
        words["device"] = choose_device(words["device"])
        dim = int(words.pop("dim"))
        choice = Choice(**words, dim=dim, teacher_dim=dim, variant="paper", threads=None)
        cases, _ = make_cases(choice, words["device"])
    except UserError as error:
        raise pytest.UsageError(str(error).replace("--", "--bench-")) from error
    metafunc.parametrize("case", cases, ids=lambda case: f"{case.loss}-{case.implementation}-{case.dtype}-{case.batch}")


def test_loss(benchmark, case: Case) -> None:
    benchmark.group = f"{case.loss}, {case.dtype}, B = {case.batch}, D = {case.dim}"
    try:
        setup = make_setup(case)
        step(setup, case.device)
    except ValueError as error:
        pytest.skip(str(error))
    peaks = measure_peaks(setup, case.device)
    setup.clear()
    times = measure_times(setup, Matmul(case), make_clock(case.device), repeats=3, seconds=0)
    benchmark.extra_info.update(matmul_ms=times.matmul, matmuls=times.both.median / times.matmul, peak_bytes=peaks.both)
    benchmark.pedantic(step, args=(setup, case.device), rounds=ROUNDS)
    release(case.device)


def step(setup: Setup, device: str) -> None:
    """Forward and backward, to the end of the device's work."""
    setup.forward().backward()
    setup.clear()
    if device == "cuda":
        torch.cuda.synchronize()
