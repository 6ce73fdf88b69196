"""The loop: each row on disk before the next case, nothing measured twice, no end by one case."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from harness.bench.losses import measure_case as measuring
from harness.bench.losses.measure_case import CaseBudget
from harness.bench.losses.measure_grid import run
from harness.bench.losses.resultfile import ResultFile, read_rows
from harness.bench.losses.rows import FAILED, OK, OUT_OF_MEMORY, PREDICTED_OUT_OF_MEMORY
from tests.harness.bench.losses.rows import CASE, ORIGIN, row

SMALL = replace(CASE, batch=16, dim=8, teacher_dim=8, threads=torch.get_num_threads())
QUICK = CaseBudget(repeats=2, seconds=30)


class Silent:
    """A display that remembers."""

    def __init__(self) -> None:
        self.began, self.shown = [], []

    def begin(self, case):
        self.began.append(case)

    def show(self, row, measured):
        self.shown.append((row.case, row.status, measured))


@pytest.fixture
def file(tmp_path):
    return ResultFile(tmp_path / "new" / "losses.csv")


@pytest.mark.slow
def test_a_row_is_on_the_disk_before_the_next_case_begins(file, monkeypatch):
    seen = []

    def begin(self, case):
        seen.append(len(read_rows(file.path)) if file.path.exists() else 0)

    monkeypatch.setattr(Silent, "begin", begin)
    run([replace(SMALL, batch=batch) for batch in (4, 8, 16)], file, ORIGIN, QUICK, Silent())
    assert seen == [0, 1, 2]


def test_a_second_run_measures_nothing(file):
    cases = [replace(SMALL, batch=batch) for batch in (8, 16)]
    first = run(cases, file, ORIGIN, QUICK, Silent())
    display = Silent()
    second = run(cases, ResultFile(file.path), replace(ORIGIN, date="later", command="other"), QUICK, display)
    assert (first.new, first.old, second.new, second.old) == (2, 0, 0, 2)
    assert display.began == []
    assert display.shown == [(case, OK, False) for case in cases]
    assert len(read_rows(file.path)) == 2


@pytest.mark.slow
def test_out_of_memory_is_a_row_and_the_run_goes_on(file, monkeypatch):
    def make(case, real=measuring.make_setup):
        if case.batch == 16:
            raise torch.OutOfMemoryError("full")
        return real(case)

    monkeypatch.setattr(measuring, "make_setup", make)
    cases = [replace(SMALL, batch=batch, implementation=name) for batch in (8, 16, 32) for name in ("dense", "formula")]
    counts = run(cases, file, ORIGIN, QUICK, Silent())
    statuses = [(each.batch, each.status) for each in read_rows(file.path) if each.implementation == "dense"]
    assert statuses == [(8, OK), (16, OUT_OF_MEMORY), (32, PREDICTED_OUT_OF_MEMORY)]
    assert (counts.new, counts.failed) == (6, [])


def test_rows_of_other_code_foretell_nothing(file, monkeypatch):
    file.append(row(OUT_OF_MEMORY, batch=8, dim=8, teacher_dim=8, threads=SMALL.threads, commit="other"))
    counts = run([SMALL], file, ORIGIN, QUICK, Silent())
    assert file.rows[-1].status == OK
    assert counts.new == 1


def test_a_failure_is_counted(file, monkeypatch):
    monkeypatch.setattr(measuring, "make_setup", lambda case: 1 / 0)
    counts = run([SMALL], file, ORIGIN, QUICK, Silent())
    assert [each.status for each in counts.failed] == [FAILED]
    assert "ZeroDivisionError" in file.rows[0].note
    assert file.rows[0].case == SMALL
