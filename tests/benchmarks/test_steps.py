"""The steps of the GPU day in this process, on a CPU, with Triton's interpreter; and the whole command."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import kdlosses
from benchmarks import gpu_day
from benchmarks.gpu import agreement, check, losses, mechanics
from benchmarks.gpu.child import Ending
from benchmarks.gpu.step import Arguments, CaseTable, Journal, parse
from harness.bench.losses.resultfile import read_rows

DTYPES = (torch.float32, torch.bfloat16)


@pytest.fixture
def given(tmp_path) -> Arguments:
    (tmp_path / "out").mkdir()
    (tmp_path / "work").mkdir()
    return Arguments(tmp_path / "out", tmp_path / "work", True, "abc", "the command")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_arguments_of_a_step_survive_its_command_line(given):
    assert parse(given.flags()) == given


def test_every_case_is_a_row_whatever_becomes_of_it(given):
    def fail() -> dict[str, object]:
        raise ValueError("no such\nkernel")

    journal = Journal(given.work / "j")
    journal.begin("crashed before")
    table = CaseTable(given.out / "t.csv", journal, ("number",), given)
    table.run({"good": lambda: {"number": 3}, "bad": fail})
    table.run({"good": lambda: pytest.fail("measured twice"), "new": lambda: {"number": 4, "status": "above bound"}})
    found = {row["case"]: (row["number"], row["status"], row["note"]) for row in rows(given.out / "t.csv")}
    assert found == {
        "crashed before": ("", "failed", "the process crashed or hung in this case"),
        "good": ("3", "ok", ""),
        "bad": ("", "failed", "ValueError: no such kernel"),
        "new": ("4", "above bound", ""),
    }
    assert {(row["commit"], row["command"]) for row in rows(given.out / "t.csv")} == {("abc", "the command")}


def test_half_a_line_of_a_killed_process_is_cut(given):
    """Its case had not begun, or has no numbers, and the next line would be glued to it."""
    path = given.out / "t.csv"
    CaseTable(path, Journal(given.work / "j"), ("number",), given).run({"whole": lambda: {"number": 1}})
    for file in (path, given.work / "j"):
        file.write_text(file.read_text() + "ha")
    CaseTable(path, Journal(given.work / "j"), ("number",), given).run({"half": lambda: {"number": 2}})
    assert [(row["case"], row["number"]) for row in rows(path)] == [("whole", "1"), ("half", "2")]
    assert Journal(given.work / "j").begun == ["whole", "half"]


@pytest.mark.parametrize("backend", ["dense", "triton"])
def test_agreement_passes_what_is_right_and_names_what_is_not(backend, monkeypatch):
    found = agreement.measure("contrastive", "paper", backend, torch.bfloat16, 24, (16, 16), "cpu")
    assert found["status"] == "ok" and 0 < float(str(found["gradient_error"])) < 1e-2
    if backend == "dense":
        monkeypatch.setitem(agreement.BOUNDS, torch.bfloat16, 1e-9)
        again = agreement.measure("contrastive", "paper", backend, torch.bfloat16, 24, (16, 16), "cpu")
        assert again["status"] == "above bound"


def test_agreement_covers_every_loss_by_every_backend_and_triton_first(given):
    cases = agreement.cases(Arguments(given.out, given.work, False, "", ""))
    assert cases[0] == ("clip_kd", "paper", "triton", torch.bfloat16)
    assert {case[0] for case in cases} == {*kdlosses.available_losses(without_options=True)}
    assert {case[2] for case in cases} == {"triton", "dense", "chunked"}
    assert {case[3] for case in cases if case[2] == "triton"} == {torch.float32, torch.float16, torch.bfloat16}


@pytest.mark.slow
def test_the_optimizer_skips_and_what_needs_a_gpu_says_so(given):
    found = {name: run() for name, run in mechanics.checks(given).items() if "training" not in name}
    assert found["fused AdamW skips a step that is not finite"] == {}
    assert found["no loss waits for the device"] == mechanics.UNSUPPORTED
    assert found["batches for the GPU are pinned"] == mechanics.UNSUPPORTED


def test_a_wrong_implementation_is_not_timed(given, monkeypatch):
    case = losses._case("contrastive", "formula", 16, 8, given)
    assert check.check(case).passed
    right = check._run

    def wrong(setup):
        value, gradients = right(setup)
        return value, [-gradient if gradient is not None and gradient.ndim == 2 else gradient for gradient in gradients]

    calls = iter([wrong, right])
    monkeypatch.setattr(check, "_run", lambda setup: next(calls)(setup))
    losses.measure_all([case], given, lambda case: pytest.fail("timed"), "large")
    (row,) = read_rows(given.out / "losses.csv")
    assert row.status == "failed" and "against float64" in row.note


@pytest.mark.slow
def test_one_step_at_the_largest_batch_is_a_row_of_bench_losses(given):
    losses.main([*given.flags(), "million"])
    found = read_rows(given.out / "losses.csv")
    assert [(row.loss, row.status, row.repeats) for row in found] == [("contrastive", "ok", 1), ("clip_kd", "ok", 1)]
    assert all(0 < row.peak_forward_bytes <= row.peak_bytes and row.matmul_ms > 0 for row in found)
    assert all(row.both_ms == pytest.approx(row.forward_ms + row.backward_ms, rel=1e-3) for row in found)
    assert {(row.commit, row.command) for row in found} == {("abc", "the command")}


def test_the_day_shares_its_time_and_goes_on_after_a_failure(tmp_path, monkeypatch):
    limits: list[float] = []

    def run(command, *, limit, **_):
        limits.append(limit)
        return Ending("failed" if len(limits) == 1 else "ok", 1.0, 1, "why")

    monkeypatch.setattr(gpu_day, "run_step", run)
    assert gpu_day.main(["--out", str(tmp_path), "--budget", "480", "--tiny", "--commit", "abc"]) == 1
    assert len(limits) == len(gpu_day.STEPS)
    assert limits[0] == pytest.approx(115, rel=0.02) and limits[-1] == pytest.approx(480, rel=0.02)
    day = json.loads((tmp_path / "day.json").read_text())
    assert [step["status"] for step in day["steps"].values()] == ["failed", *["ok"] * 5]
    assert day["commit"] == "abc" and "--budget 480" in day["command"]


@pytest.mark.slow
def test_the_whole_day_on_a_cpu(tmp_path):
    assert gpu_day.main(["--out", str(tmp_path), "--tiny", "--budget", "1500"]) == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {
        *("agreement.csv", "mechanics.csv", "losses.csv", "train.csv", "train_cases.csv"),
        *("quickstart.json", "day.json", "log.txt"),
    }
    for name in ("agreement.csv", "mechanics.csv", "train_cases.csv"):
        assert {row["status"] for row in rows(tmp_path / name)} <= {"ok", "unsupported"}
    assert {row.status for row in read_rows(tmp_path / "losses.csv")} == {"ok"}


@pytest.mark.slow
def test_the_command_runs_as_a_file_from_any_folder(tmp_path):
    command = [sys.executable, gpu_day.__file__, "--out", str(tmp_path / "out"), "--budget", "0"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "agreement: out of time" in done.stdout
