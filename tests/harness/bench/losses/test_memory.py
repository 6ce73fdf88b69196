"""Live tensors are counted by hand-checkable rules; the other ways of asking for memory agree with it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict

import pytest
import torch
from torch import Tensor

from harness.bench.losses import dryrun, memory, rss
from harness.bench.losses.cases import Case
from harness.bench.losses.implementations import make_setup
from harness.bench.losses.livebytes import LiveBytes
from tests.grid import grid

KIB = 256  # floats in a KiB


def kib(number: float = 1) -> Tensor:
    return torch.zeros(int(number * KIB))


def case(**changes: object) -> Case:
    values = {"loss": "crd", "variant": "paper", "implementation": "dense", "batch": 32, "dim": 16, "teacher_dim": 16}
    values |= {"dtype": "float32", "device": "cpu", "threads": torch.get_num_threads()}
    return Case(**{**values, **changes})


@pytest.fixture
def counter():
    with LiveBytes() as counter:
        yield counter


def counted(counter: LiveBytes) -> tuple[float, float]:
    """Live and peak in KiB."""
    return counter.live / 1024, counter.peak / 1024


def test_a_chain_counts_what_is_alive_and_the_peak_of_it(counter):
    a = kib(2)
    b = a + 1
    assert counted(counter) == (4, 4)
    del a
    assert counted(counter) == (2, 4)
    c = b * 2
    del b, c
    assert counted(counter) == (0, 4)


def test_inputs_count_nothing_also_when_they_end():
    a = kib(8)
    with LiveBytes() as counter:
        b = a + 1
        del a
        assert counted(counter) == (8, 8)
        del b
    assert counted(counter) == (0, 8)


def test_views_share_their_storage(counter):
    a = kib(4)
    views = [a.view(2, -1), a[KIB:], a.view(32, 32).T, a.unsqueeze(0).expand(5, -1), a.detach()]
    assert counted(counter) == (4, 4)
    del a
    assert counted(counter) == (4, 4), "a view keeps the storage alive"
    views.clear()
    assert counted(counter) == (0, 4)


def test_in_place_and_out_make_nothing(counter):
    a, b, out = kib(), kib(), kib()
    a.add_(b).mul_(2)
    torch.add(a, b, out=out)
    a[:10] = 0
    assert counted(counter) == (3, 3)


def test_out_that_grows_is_counted_as_it_grows(counter):
    out = torch.empty(0)
    torch.add(kib(2), 1, out=out)
    assert counter.live == out.untyped_storage().nbytes() == 2048


def test_an_operator_with_several_results_counts_each(counter):
    values, places = kib(2).sort()
    assert counted(counter) == (6, 8)  # int64 places; the unsorted ones lived until the end of the line
    del values, places
    assert counter.live == 0


def test_saved_tensors_live_as_long_as_the_graph_and_gradients_count(counter):
    x = kib(4).requires_grad_()
    y = x.exp()
    loss = y.sum()
    del y
    assert counter.live == 2 * 4096 + 4, "x, the saved exp(x), the loss"
    loss.backward()
    # While it runs: x, exp(x), the loss, its gradient of one, and exp(x) times it.
    assert counter.peak == 3 * 4096 + 8
    del loss
    assert counter.live == 2 * 4096, "x and its gradient"


class Cube(torch.autograd.Function):
    """Keeps nothing but its input, needs a temporary on the way back."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        square = x * x
        return square.mul_(3).mul_(grad)


def test_inside_an_autograd_function(counter):
    x = kib(4).requires_grad_()
    Cube.apply(x).sum().backward()
    assert counted(counter)[0] == pytest.approx(8, abs=0.01), "x and its gradient"
    # The cube itself ended with its line; the expanded gradient of the sum is a view of one number.
    assert counted(counter)[1] == pytest.approx(8, abs=0.01)


def test_the_count_of_a_loss_does_not_change_from_run_to_run():
    setup = make_setup(case(loss="fd"))
    peaks = memory.count_live(setup)
    assert 0 < peaks.forward <= peaks.both
    assert all(leaf.grad is not None for leaf in setup.leaves[:2])
    setup.clear()
    assert memory.count_live(setup).both == peaks.both


@grid(loss=["clip_kd", "gd", "afd"], implementation=["dense", "chunked", "formula"])
def test_a_dry_run_counts_the_same_without_the_memory(loss, implementation):
    size = case(loss=loss, implementation=implementation, teacher_dim=24)
    assert dryrun.dry_run(size) == (memory.count_live(make_setup(size)).both, True)


def test_a_dry_run_of_what_no_machine_holds():
    peak, complete = dryrun.dry_run(case(implementation="formula", batch=2**20))
    assert complete and peak > 2**40


def test_a_dry_run_over_many_tiles_ends_early_with_what_it_saw(monkeypatch):
    whole, _ = dryrun.dry_run(case())
    monkeypatch.setattr(dryrun, "MOST_OPERATORS", 40)
    peak, complete = dryrun.dry_run(case())
    assert not complete and 0 < peak < whole


def test_a_dry_run_that_cannot_be_had_is_none(monkeypatch):
    assert dryrun.dry_run(case(device="cuda")) is None
    monkeypatch.setattr(dryrun, "make_setup", lambda case: torch.ones(3).sum().item())
    assert dryrun.dry_run(case()) is None


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("not enough memory"), False),
    ],
)
def test_running_out_of_memory_is_known_by_its_words(error, expected):
    assert memory.is_out_of_memory(error) is expected


def test_torch_says_so_in_these_words():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert memory.is_out_of_memory(caught.value)


def test_a_containers_limit_counts(monkeypatch):
    assert 0 < memory.available_bytes("cpu") < 2**50
    for left, found in ((4000, lambda free: free == 4000), (None, lambda free: free > 2**20)):
        monkeypatch.setattr(memory, "memory_left", lambda left=left: left)
        assert found(memory.available_bytes("cpu"))


@pytest.mark.slow
@pytest.mark.skipif(bool(rss.rss_unavailable("cpu")), reason="only Linux tells a process's peak")
def test_the_resident_set_grows_by_about_the_live_tensors():
    size = case(loss="contrastive", implementation="formula", batch=2048, threads=1)
    live = memory.count_live(make_setup(size)).both
    assert 0.8 * live < rss.measure_rss(size) < 2 * live + 2**24


def test_a_process_that_is_ended_leaves_no_number(monkeypatch):
    ended = subprocess.CompletedProcess([], returncode=-9, stdout="", stderr="")
    asked = []
    monkeypatch.setattr(rss.subprocess, "run", lambda command, **_: asked.append(command) or ended)
    assert rss.measure_rss(case()) is None
    assert asked[0][0] == sys.executable and json.loads(asked[0][-1]) == asdict(case())


def test_the_resident_set_is_no_measure_of_a_gpu():
    assert "GPU" in rss.rss_unavailable("cuda")
