"""Worker processes: what a user is told when one dies, that they end with the loader, and what they cost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import open_clip
import pytest
import torch

from harness.data.dataloader import lost_worker
from harness.data.texts import Texts
from harness.data.tokens import leaders
from harness.errors import UserError
from tests.harness.pairs import load, numbers, take, write_csv, write_shards


def children() -> set[int]:
    """Process ids of this process's children."""
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return {int(number) for number in file.read().split()}


def until_gone(processes: set[int]) -> None:
    """Wait until none of these is a child any more."""
    deadline = time.monotonic() + 20
    while processes & children() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not processes & children()


KILL = """
import os, signal, sys
from harness.data.dataloader import lost_worker
from tests.harness.pairs import load, take
from tests.harness.test_data_workers import children

loader = load(sys.argv[1], workers=1)
take(loader, 1)
try:
    for worker in children():
        os.kill(worker, signal.SIGKILL)
    take(loader, 50)
except Exception as error:
    print(lost_worker(error) or error, flush=True)
os._exit(0)
"""


def test_a_killed_worker_is_one_sentence(tmp_path):
    """In a process of its own, since torch raises the error wherever the main thread is."""
    command = [sys.executable, "-c", KILL, str(write_csv(tmp_path, 40))]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=root)
    (message,) = done.stdout.splitlines()
    assert message.startswith("a data worker ended by itself or was killed ("), done.stderr
    assert message.endswith("lower data.workers, or look into the system's log (dmesg).")


def test_too_little_shared_memory_is_told():
    error = RuntimeError(
        "DataLoader worker (pid 12) is killed by signal: Bus error. It is possible that dataloader's workers are out "
        "of shared memory. Please try to raise your shared memory limit."
    )
    assert "ran out of shared memory (/dev/shm); enlarge it" in str(lost_worker(error))
    assert lost_worker(RuntimeError("CUDA error: out of memory")) is None


def test_a_worker_that_dies_while_it_hands_a_batch_over_is_told():
    assert "or was killed ([Errno 104] Connection reset" in str(
        lost_worker(ConnectionResetError(104, "Connection reset"))
    )
    assert "or was killed (EOFError)" in str(lost_worker(EOFError()))
    assert lost_worker(FileNotFoundError("Caught FileNotFoundError in DataLoader worker process 0.")) is None
    assert lost_worker(OSError(5, "Input/output error")) is None


@pytest.mark.parametrize("source", ["csv", "shards"])
def test_workers_end_with_the_loader(tmp_path, source):
    before = children()
    train = write_csv(tmp_path, 40) if source == "csv" else write_shards(tmp_path, 40, per_shard=10)
    loader = load(train, workers=2)
    take(loader, 1)
    assert len(children() - before) >= 2
    loader.close()
    until_gone(children() - before)


def test_workers_outlive_the_signals_that_stop_a_run(tmp_path):
    """SLURM sends SIGTERM to every process of a job step, and torchrun hands the one that it got on to them as well."""
    before = children()
    loader = load(write_shards(tmp_path, 40, per_shard=10), workers=2)
    take(loader, 1)
    workers = children() - before
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
        for worker in workers:
            os.kill(worker, number)
        time.sleep(0.2)  # two at once would be one
    assert set(take(loader, 19)) == set(range(40)) and workers <= children()
    loader.close()
    until_gone(workers)


TOLD = """
import time
from harness.data import dataloader

dataloader._ONE_STOP = 0.1
dataloader._outlive_a_stop(0)
print("ready", flush=True)
for _ in range(600):
    time.sleep(0.1)
"""


def test_a_worker_that_is_told_again_later_ends():
    """As it is when it has not ended by itself seconds after its loader was closed."""
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen([sys.executable, "-c", TOLD], stdout=subprocess.PIPE, cwd=root) as worker:
        assert worker.stdout is not None and worker.stdout.readline() == b"ready\n"
        worker.terminate()
        time.sleep(0.5)
        assert worker.poll() is None
        worker.terminate()
        assert worker.wait(20) == -signal.SIGTERM


def test_a_failure_in_a_worker_is_one_sentence(tmp_path):
    train = write_csv(tmp_path, 8)
    (tmp_path / "images" / "3.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"^data\.train holds 7 usable samples, fewer than one batch of 8; lower"):
        take(load(train, batch_size=8, workers=2, max_skip_rate=0.5), 1)


def test_texts_come_back_as_they_were():
    texts, given = Texts(), ["a", "", None, "größe", None, "caf\udce9", "\n\0,", ""]
    for text in given:
        texts.append(text)
    assert [texts[index] for index in range(len(texts))] == given


def test_equal_tokenizers_are_used_once(tmp_path):
    calls = []

    def first(captions: list[str]) -> torch.LongTensor:
        calls.append("first")
        return numbers(captions)

    def second(captions: list[str]) -> torch.LongTensor:
        calls.append("second")
        return numbers(captions)

    batch = next(load(write_csv(tmp_path, 4), tokenizers={"student": first, "teacher": first, "other": second}))
    assert calls == ["first", "second"]
    assert batch.tokens["student"] is batch.tokens["teacher"] is not batch.tokens["other"]
    assert list(batch.tokens) == ["student", "teacher", "other"]


def test_open_clips_tokenizers_are_told_apart():
    clip, used, short = (open_clip.SimpleTokenizer(context_length=length) for length in (77, 77, 32))
    used("words that fill its cache")
    other = open_clip.SimpleTokenizer(clean="whitespace")
    found = leaders({"clip": clip, "used": used, "short": short, "other": other})
    assert found == {"clip": "clip", "used": "clip", "short": "short", "other": "other"}


def test_tokenizers_of_hugging_face_are_told_apart(tmp_path):
    from harness.tokenizers import write_tokenizer

    for name, corpus in (("a", ["a red cat"]), ("b", ["a red cat"]), ("c", ["a blue house"])):
        write_tokenizer(corpus, tmp_path / name)
    made = {name: open_clip.tokenizer.HFTokenizer(str(tmp_path / name), context_length=8) for name in "abc"}
    made["b"](["a cat"])
    made["long"] = open_clip.tokenizer.HFTokenizer(str(tmp_path / "a"), context_length=9)
    assert leaders(made) == {"a": "a", "b": "a", "c": "c", "long": "long"}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="page-locked memory needs a CUDA device")
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("cache", ["none", "memory"])
@pytest.mark.parametrize("source", ["csv", "shards"])
def test_batches_for_a_gpu_are_pinned(tmp_path, source, cache, workers):
    train = write_csv(tmp_path, 8) if source == "csv" else write_shards(tmp_path, 8, per_shard=4)
    loader = load(train, cache=cache, workers=workers, pin_memory=True)
    batch = next(loader)
    assert batch.images.is_pinned() and batch.tokens["numbers"].is_pinned()
    loader.close()
