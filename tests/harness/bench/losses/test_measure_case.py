"""One case: its numbers, whatever happens, and the spans that its times are."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch

from harness.bench.losses import measure_case as measuring
from harness.bench.losses.cases import Case
from harness.bench.losses.implementations import Setup
from harness.bench.losses.measure_case import CaseBudget, attempt, measure
from harness.bench.losses.rows import FAILED, OK, OUT_OF_MEMORY, UNSUPPORTED, LossRow
from harness.bench.losses.timing import MATMUL_BLOCK_BYTES, Matmul, Percentiles, measure_times
from tests.harness.bench.losses.rows import CASE, ORIGIN

SMALL = replace(CASE, batch=16, dim=8, teacher_dim=8, threads=torch.get_num_threads())
QUICK = CaseBudget(repeats=2, seconds=30)


def attempted(case: Case) -> LossRow:
    return attempt(case, ORIGIN, partial(measure, budget=QUICK))


def test_a_measured_row_holds_every_number():
    found = attempted(SMALL)
    assert (found.status, found.note, found.repeats, found.rss_bytes) == (OK, "", 2, None)
    assert found.case == SMALL and found.origin == ORIGIN
    assert 0 < found.forward_p20 <= found.forward_ms <= found.forward_p80 < found.both_p80
    assert 0 < found.backward_p20 <= found.backward_ms <= found.backward_p80
    assert found.matmuls == pytest.approx(found.both_ms / found.matmul_ms)
    assert 0 < found.peak_forward_bytes <= found.peak_bytes < 2**20
    assert 0 < found.value < 10


def test_all_implementations_measure_the_same_value():
    values = [attempted(replace(SMALL, implementation=name)).value for name in ("dense", "chunked", "formula")]
    assert values == pytest.approx([values[0]] * 3, rel=1e-5)


def test_the_resident_set_is_asked_for_on_demand(monkeypatch):
    monkeypatch.setattr(measuring, "measure_rss", lambda case: 12345)
    assert measure(SMALL, replace(QUICK, rss=True))["rss_bytes"] == 12345


@pytest.mark.parametrize(
    ("error", "status", "note"),
    [
        (torch.OutOfMemoryError("CUDA out of memory.\nTried to"), OUT_OF_MEMORY, "CUDA out of memory. Tried to"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), OUT_OF_MEMORY, "can't allocate"),
        (ValueError("widths above 1024"), UNSUPPORTED, "widths above 1024"),
        (RuntimeError("shapes"), FAILED, "RuntimeError: shapes"),
    ],
)
def test_whatever_happens_is_a_row(monkeypatch, error, status, note):
    def fail(case):
        raise error

    monkeypatch.setattr(measuring, "make_setup", fail)
    found = attempted(SMALL)
    assert found.status == status and note in found.note and "\n" not in found.note
    assert found.both_ms is None and found.case == SMALL


def test_an_interruption_is_no_row(monkeypatch):
    monkeypatch.setattr(measuring, "make_setup", lambda case: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        attempted(SMALL)


def test_running_out_of_memory_leaves_nothing_behind(monkeypatch):
    held = []

    def fill(setup, unit):
        big = torch.zeros(10)
        held.append(torch.multiprocessing.reductions.StorageWeakRef(big.untyped_storage()))
        raise torch.OutOfMemoryError("no")

    monkeypatch.setattr(measuring, "warm_up", fill)
    assert attempted(SMALL).status == OUT_OF_MEMORY
    assert held[0].expired()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_case_on_a_gpu():
    found = attempted(replace(SMALL, device="cuda", batch=512, dim=64, teacher_dim=64))
    assert found.status == OK
    assert 0 < found.peak_forward_bytes <= found.peak_bytes
    assert found.both_ms == pytest.approx(found.forward_ms + found.backward_ms, rel=0.5)


class Ticks:
    """A clock that only work moves."""

    def __init__(self) -> None:
        self.now = 0

    def mark(self):
        return self.now

    def between(self, start, stop):
        return stop - start

    def work(self, ticks):
        self.now += ticks


@pytest.fixture
def ticks():
    return Ticks()


def worker(ticks: Ticks, forward: int = 3, backward: int = 5) -> Setup:
    class Loss:
        def backward(self):
            ticks.work(backward)

    def call():
        ticks.work(forward)
        return Loss()

    return Setup(call, ())


def test_each_span_is_what_it_says(ticks):
    times = measure_times(worker(ticks), lambda: ticks.work(2), ticks, repeats=4, seconds=60)
    assert times.forward == Percentiles(3, 3, 3)
    assert times.backward == Percentiles(5, 5, 5)
    assert times.both == Percentiles(8, 8, 8)
    assert (times.matmul, times.repeats) == (2, 4)


def test_the_time_limit_ends_the_repeats_but_leaves_three(ticks):
    assert measure_times(worker(ticks), lambda: None, ticks, repeats=10, seconds=0).repeats == 3
    assert measure_times(worker(ticks), lambda: None, ticks, repeats=1, seconds=0).repeats == 1


def test_percentiles():
    assert Percentiles.of([5, 1, 2, 3, 4]) == Percentiles(3, 1.8, 4.2)


def test_the_unit_is_one_product_also_in_blocks(monkeypatch):
    whole = Matmul(SMALL)
    whole()
    assert torch.equal(whole._out, torch.mm(whole._left, whole._right.T))
    monkeypatch.setitem(MATMUL_BLOCK_BYTES, "cpu", 5 * 16 * 4)
    blocks = Matmul(SMALL)
    blocks()
    assert blocks._out.shape == (5, 16), "16 rows of 16 float32 in blocks of 5"
    assert torch.equal(blocks._out[:1], torch.mm(blocks._left[15:], blocks._right.T))
