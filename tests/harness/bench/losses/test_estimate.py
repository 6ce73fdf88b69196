"""What is estimated from smaller batches and dry runs."""

from __future__ import annotations

from dataclasses import replace

import pytest

import harness.bench.losses.estimate as estimating
from harness.bench.losses.estimate import estimate
from harness.bench.losses.measure_case import CaseBudget
from harness.bench.losses.rows import OUT_OF_MEMORY, PREDICTED_OUT_OF_MEMORY, PREDICTED_TOO_SLOW
from tests.harness.bench.losses.rows import CASE, row

ANY = CaseBudget()


@pytest.fixture
def free(monkeypatch):
    """Set the memory there is; no dry run unless it is set too."""
    monkeypatch.setattr(estimating, "dry_run", lambda case: None)

    def set_(bytes_: float) -> None:
        monkeypatch.setattr(estimating, "available_bytes", lambda device: bytes_ / estimating.USABLE)

    set_(2**40)
    return set_


def estimated(batch: int, rows: list, budget: CaseBudget = ANY, **changes: object) -> tuple[str, str] | None:
    return estimate(replace(CASE, batch=batch, **changes), rows, budget)


def test_nothing_is_foretold_from_nothing(free):
    assert estimated(4096, []) is None


def test_memory_by_smaller_batches(free):
    rows = [row(batch=256), row(batch=512)]  # 1 MiB and 4 MiB
    free(17 * 2**20)
    assert estimated(1024, rows) is None
    free(15 * 2**20)
    status, note = estimated(1024, rows)
    assert status == PREDICTED_OUT_OF_MEMORY
    assert note == "needs 16 MiB (by smaller batches), 15 MiB can be used"
    assert estimated(1024, rows, implementation="chunked") is None, "another implementation's rows say nothing"


def test_memory_that_grows_with_b_alone_is_not_taken_for_b_times_b(free):
    rows = [row(batch=256, peak_bytes=2**20), row(batch=512, peak_bytes=2**21)]
    free(10 * 2**20)
    assert estimated(1024, rows) is None, "4 MiB; by B x B it would be 8"
    assert estimated(4096, rows)[1].startswith("needs 16 MiB")


def test_after_running_out_of_memory_larger_batches_are_not_tried(free):
    rows = [row(batch=256), row(OUT_OF_MEMORY, batch=512)]
    assert estimated(1024, rows) == (PREDICTED_OUT_OF_MEMORY, "ran out of memory at B = 512")
    assert estimated(512, rows) is None, "not below it, nor itself: that row settles it"


def test_a_dry_run_decides_where_smaller_batches_cannot(free, monkeypatch):
    free(2**20)
    monkeypatch.setattr(estimating, "dry_run", lambda case: (2**30, True))
    assert estimated(1024, [])[1].startswith("needs 1 GiB (counted without allocating it)")
    monkeypatch.setattr(estimating, "dry_run", lambda case: (2**30, False))
    assert estimated(1024, [])[1].startswith("needs at least 1 GiB")
    monkeypatch.setattr(estimating, "dry_run", lambda case: (2**10, True))
    assert estimated(1024, [row(batch=256)]) is None, "the square of B would not fit, the count does"


def test_a_long_walk_is_foretold_by_dry_runs_of_smaller_batches(free, monkeypatch):
    runs = {2048: (40 * 2**20, True), 4096: (60 * 2**20, True), 65536: (2**20, False)}
    monkeypatch.setattr(estimating, "dry_run", lambda case: runs[case.batch])
    free(2**30)
    assert estimated(65536, []) is None, "it grows no faster than B: 960 MiB"
    free(2**29)
    assert estimated(65536, [])[1].startswith("needs 960 MiB (by smaller batches)")


def test_a_gpu_may_try_what_is_far_from_anything_measured(free):
    free(2**20)
    rows = [row(batch=256, device="cuda"), row(batch=512, device="cuda")]
    assert estimated(2048, rows, device="cuda")[0] == PREDICTED_OUT_OF_MEMORY
    assert estimated(4096, rows, device="cuda") is None


def test_time_by_smaller_batches(free):
    rows = [row(batch=256), row(batch=512)]  # 10 and 40 ms, so 640 ms at 2048
    assert estimated(2048, rows, CaseBudget(seconds=3.3)) is None
    status, note = estimated(2048, rows, CaseBudget(seconds=3.1))
    assert status == PREDICTED_TOO_SLOW
    assert note == "5 passes of 640 ms (by smaller batches), the time limit is 3.1 s"
    assert estimated(2048, rows, CaseBudget(seconds=2, repeats=1)) is None, "three passes only"


def test_time_by_the_matrix_products_alone(free):
    other = [row(batch=2048, implementation="formula", loss="fd", matmul_ms=100.0)]
    assert estimated(2048, other, CaseBudget(seconds=2.1)) is None
    status, note = estimated(2048, other, CaseBudget(seconds=1.9))
    assert (status, note) == (
        PREDICTED_TOO_SLOW,
        "5 passes of 400 ms (its matrix products alone), the time limit is 1.9 s",
    )
    assert estimated(2048, [row(batch=4096, matmul_ms=1e9)], CaseBudget(seconds=1)) is None, (
        "larger batches say nothing"
    )
