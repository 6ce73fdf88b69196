"""What `clipkd bench train` is made of: splitting steps, counting, idle time, data."""

from __future__ import annotations

import csv
import threading
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from harness.bench.losses.timing import CpuClock
from harness.bench.train import idle as idling
from harness.bench.train.batches import KEPT, write_jpegs
from harness.bench.train.clipkd_trainer import ClipkdTrainer
from harness.bench.train.parts import PARTS, Recorder, watched
from harness.bench.train.rate import count_flops, matmul_rate
from tests.harness import tiny


class FakeClock:
    """Tells the milliseconds that the test sets."""

    now = 0.0

    def mark(self) -> float:
        return self.now

    def between(self, start: float, stop: float) -> float:
        return stop - start


# --- splitting a step


def test_every_moment_of_a_step_belongs_to_the_innermost_part():
    clock = FakeClock()
    recorder = Recorder(clock)

    def spend(milliseconds: float) -> None:
        clock.now += milliseconds

    inner = recorder.wrap("loss", spend)
    outer = recorder.wrap("student", lambda: (spend(2), inner(3), spend(4)))
    last = recorder.wrap("backward", spend, then="optimizer")
    for _ in range(2):
        recorder.begin()
        spend(1)
        recorder.enter("inputs")
        outer()
        spend(5)
        last(6)
        spend(7)
        recorder.end()
        spend(100)
    expected = {"data": 1, "inputs": 5, "student": 6, "loss": 3, "backward": 6, "optimizer": 7}
    assert recorder.steps() == [{**dict.fromkeys(PARTS, 0), **expected}] * 2
    recorder.clear()
    assert recorder.steps() == []


def test_a_part_that_fails_is_over():
    recorder = Recorder(FakeClock())
    recorder.begin()
    with pytest.raises(ZeroDivisionError):
        recorder.wrap("loss", lambda: 1 / 0)()
    assert recorder._part == "data"


def test_watching_leaves_task_optimizer_and_autograd_as_they_were():
    class Task(nn.Module):
        def encode(self) -> None: ...
        def teacher_forward(self) -> None: ...
        def compute(self) -> None: ...

    task, parameter = Task(), nn.Parameter(torch.ones(2))
    optimizer, backward, recorder = torch.optim.SGD([parameter]), torch.autograd.backward, Recorder(CpuClock())
    recorder.begin()
    with watched(task, optimizer, recorder):
        for part in (task.encode, task.teacher_forward, task.compute, parameter.sum().backward, optimizer.step):
            part()
        recorder.end()
    seen = [part for part, _ in recorder._steps[0]]
    assert [part for part in seen if part not in ("data", "")] == [
        "student", "teacher", "loss", "backward", "optimizer", "optimizer", "other"
    ]  # fmt: skip
    assert torch.autograd.backward is backward
    assert not {"encode", "teach", "compute"} & vars(task).keys()
    optimizer.step()
    assert len(recorder._steps[0]) == len(seen)


@pytest.mark.parametrize("slices", [1, 2])
def test_the_split_of_real_steps_sums_to_the_step(tmp_path, slices):
    pair = {**tiny.DISTILL, "train": {"accum_freq": slices}}
    ours = ClipkdTrainer(tiny.recipe(**pair), "synthetic", torch.device("cpu"), tmp_path)
    try:
        before = [p.clone() for _, p in ours.trainer.task.trainable()]
        ours.round(1, 0)
        start = time.perf_counter()
        steps = ours.round(0, 2)
        milliseconds = 1e3 * (time.perf_counter() - start)
    finally:
        ours.close()
    assert len(steps) == 2
    assert all(step[part] > 0 for step in steps for part in PARTS)
    assert sum(sum(step.values()) for step in steps) <= milliseconds
    assert any(not torch.equal(a, b) for a, (_, b) in zip(before, ours.trainer.task.trainable(), strict=True))
    assert 0 <= ours.idle() < 1


# --- counting and rates


def test_flops_of_products_forward_and_backward():
    left, right = torch.randn(3, 5, requires_grad=True), torch.randn(5, 7, requires_grad=True)
    assert count_flops(lambda: (left @ right).sum().backward()) == 3 * 2 * 3 * 5 * 7


@pytest.mark.parametrize("training", [True, False])
def test_attention_is_counted_fused_or_not(training):
    batch, length, width = 2, 5, 16
    attention = nn.MultiheadAttention(width, 2, batch_first=True).train(training)
    x = torch.randn(batch, length, width)
    projections = 4 * 2 * batch * length * width**2
    products = 2 * 2 * batch * length**2 * width
    with torch.set_grad_enabled(training):
        assert count_flops(lambda: attention(x, x, x, need_weights=False)) == projections + products
    assert torch.backends.mha.get_fastpath_enabled()


def test_the_rate_of_a_product_is_positive_and_finite():
    assert 1e6 < matmul_rate("cpu", torch.float32, side=64) < 1e15


# --- idle time


def test_the_cpu_is_idle_while_the_process_sleeps():
    meter = idling.CpuMeter()
    meter.add(lambda: threading.Event().wait(0.2))
    assert meter.idle() > 0.5


def test_spans_that_overlap_are_counted_once():
    assert idling.union([(5.0, 6.0), (0.0, 2.0), (1.0, 3.0), (1.5, 2.5)]) == 4.0
    assert idling.union([]) == 0.0


# --- data


def test_jpegs_are_seeded_and_listed(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    listed = [write_jpegs(tmp_path / name, 3, 5, seed=1) for name in ("a", "b")]
    rows = list(csv.DictReader(listed[0].open(encoding="utf-8"), delimiter="\t"))
    paths = [row["filepath"] for row in rows]
    assert len(set(paths)) == 3 and paths[3:] == paths[:2]
    assert all(Path(row["filepath"]).is_absolute() and row["title"] for row in rows)
    with Image.open(rows[0]["filepath"]) as image:
        assert (image.format, image.size) == ("JPEG", (480, 360))
    assert 20_000 < Path(rows[0]["filepath"]).stat().st_size < 200_000
    assert (tmp_path / "a/000002.jpg").read_bytes() == (tmp_path / "b/000002.jpg").read_bytes()
    assert (tmp_path / "a/000001.jpg").read_bytes() != (tmp_path / "a/000002.jpg").read_bytes()


def test_two_batches_are_kept_on_the_device(tmp_path):
    ours = ClipkdTrainer(tiny.recipe(**tiny.DISTILL), "synthetic", torch.device("cpu"), tmp_path)
    seen = {next(ours._batches).images.data_ptr() for _ in range(5)}
    ours.close()
    assert len(seen) == KEPT
