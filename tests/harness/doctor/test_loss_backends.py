"""Backends against float64: right ones agree, wrong ones and those that raise are rows."""

import math

import pytest
import torch

import kdlosses
from harness.doctor import loss_backends
from harness.doctor.loss_backends import check_device, largest_error


@pytest.fixture
def three(monkeypatch):
    reasons = {"chunked": None, "dense": None, "triton": None}
    monkeypatch.setattr(kdlosses.backends, "available", lambda: reasons)
    return reasons


def test_the_backends_of_this_machine_agree():
    assert 0 < largest_error("dense", "cpu") < loss_backends._CLOSE
    assert 0 < largest_error("chunked", "cpu") < loss_backends._CLOSE


@pytest.mark.parametrize("factor", [1.5, 0, math.nan])
def test_a_wrong_gradient_of_one_loss_is_a_fault(monkeypatch, factor):
    run = loss_backends.run_loss

    def wrong(name, backend, device, dtype):
        *right, last = run(name, backend, device, dtype)
        return [*right, last * factor if name == "afd" and dtype == torch.float32 else last]

    monkeypatch.setattr(loss_backends, "LOSSES", ("fd", "afd", "contrastive"))
    monkeypatch.setattr(loss_backends, "run_loss", wrong)
    assert [row.level for row in check_device("cpu") if row.says.startswith("dense")] == ["fault"]


def test_each_backend_is_judged_by_itself(monkeypatch, three):
    def error(backend: str, _: str) -> float:
        if backend == "chunked":
            raise RuntimeError("no kernel image is available\nmore")
        return 1e-3

    monkeypatch.setattr(loss_backends, "largest_error", error)
    chunked, dense, triton = check_device("cpu")
    assert (chunked.level, chunked.says) == ("fault", "chunked: RuntimeError: no kernel image is available")
    assert (dense.level, dense.says) == ("warning", "dense is 1e-03 from float64, as with TF32")
    assert (triton.level, triton.says) == ("skipped", "triton: its kernels are for GPUs")


def test_what_agrees_shares_a_row_and_what_cannot_run_says_why(monkeypatch, three):
    monkeypatch.setattr(loss_backends, "largest_error", lambda *_: 2e-7)
    (row,) = check_device("cuda:0")
    assert (row.check, row.level) == ("losses cuda:0", "ok")
    assert row.says.startswith("chunked 2e-07, dense 2e-07, triton 2e-07 (")
    three["triton"] = "there is no CUDA device"
    skipped, _ = check_device("cpu")
    assert skipped.says == "triton: there is no CUDA device"


@pytest.mark.parametrize(("error", "level"), [(1e-3, "warning"), (0.5, "fault"), (math.nan, "fault")])
def test_levels(error, level):
    assert loss_backends.judge("losses cpu", "dense", error).level == level
