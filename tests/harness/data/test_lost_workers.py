"""Of a data worker's death only what is known is said, and nothing where none has died."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from harness.data.lost_workers import lost_worker, naming_lost_workers
from harness.errors import UserError
from tests.harness.data.forked import children, start
from tests.harness.data.pairs import load, take, write_csv


class Worker:
    """A process as multiprocessing shows it."""

    def __init__(self, pid: int, exitcode: int | None = None) -> None:
        self.pid, self.exitcode = pid, exitcode
        read, self._write = os.pipe()
        self.sentinel = read
        if exitcode is not None:
            os.close(self._write)


def told(error: Exception, *workers: Worker) -> str | None:
    lost = lost_worker(error, workers, "data.workers", "train.batch_size")
    return lost and str(lost)


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr("harness.data.lost_workers._END", 0.01)


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(2, "No such file or directory", "run/metrics.jsonl"),
        ConnectionResetError(104, "Connection reset by peer"),
        EOFError(),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("DataLoader worker (pid 12) is killed by signal: Killed. "),
    ],
)
@pytest.mark.parametrize("workers", [(), (Worker(1), Worker(2))], ids=["none", "alive"])
def test_no_worker_is_blamed_that_has_not_died(error, workers):
    assert told(error, *workers) is None


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError(104, "Connection reset by peer"),
        EOFError(),
        FileNotFoundError(2, "No such file or directory", "/tmp/pymp-x/listener-y"),
        RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "),
        RuntimeError("DataLoader worker (pid(s) 6, 7) exited unexpectedly"),
    ],
)
def test_one_that_was_killed_is_named_with_its_signal(error):
    said = told(error, Worker(6), Worker(7, -signal.SIGKILL))
    assert said == (
        "data worker 7 was killed by SIGKILL; if the system did it for lack of memory, its log (dmesg) says so: lower "
        "data.workers then"
    )


def test_one_that_ended_by_itself_is_named_with_its_exit_code():
    assert "data worker 7 ended by itself with exit code 3" in told(EOFError(), Worker(7, 3))
    assert "data worker 7 was killed by SIGSEGV" in told(EOFError(), Worker(7, -signal.SIGSEGV))
    assert "data worker 7 was killed by signal 40" in told(EOFError(), Worker(7, -40)), "a real-time signal has no name"
    assert told(EOFError(), Worker(7, 0)) is None, "as a loader that is closed asks it to"


def test_an_error_that_a_worker_raised_is_not_its_death():
    error = FileNotFoundError("Caught FileNotFoundError in DataLoader worker process 0.")
    assert told(error, Worker(7, 1)) is None


def test_too_little_shared_memory_is_told():
    error = RuntimeError(
        "DataLoader worker (pid 12) is killed by signal: Bus error. It is possible that dataloader's workers are out "
        "of shared memory. Please try to raise your shared memory limit."
    )
    said = told(error, Worker(12, -signal.SIGBUS))
    assert "ran out of shared memory (/dev/shm); enlarge it" in said
    assert said.endswith("or lower data.workers or train.batch_size.")


def test_other_errors_pass():
    with pytest.raises(EOFError), naming_lost_workers(tuple, "--workers"):
        raise EOFError


def missing_file(connection, folder: Path) -> None:
    """A trainer, with workers that live and without any, for which a file of its own is gone."""
    for workers in (0, 1):
        loader = load(write_csv(folder, 40), workers=workers)
        take(loader, 1)
        error = FileNotFoundError(2, "No such file or directory", str(folder / "nonfinite.jsonl"))
        connection.send(loader.lost_worker(error))
        loader.close()


def test_a_missing_file_is_no_workers_fault(tmp_path):
    process, connection = start(missing_file, tmp_path)
    assert connection.poll(300) and connection.recv() is None
    assert connection.poll(300) and connection.recv() is None
    process.join(20)


def killed_evaluation(connection, folder: Path) -> None:
    """An evaluation whose worker is killed while the model computes."""
    from harness.evaluate.evaluator import evaluate
    from harness.models import create_model
    from tests.harness import tiny
    from tests.harness.evaluate.eval_sets import write_zeroshot

    def kill() -> None:
        for worker in children():
            os.kill(worker, signal.SIGKILL)
        time.sleep(1)

    item = write_zeroshot(folder / "val", [0, 1] * 20, ["a", "b"])
    model = create_model(tiny.recipe().student)
    try:
        evaluate(model, [item], batch_size=1, workers=1, tick=kill)
    except UserError as error:
        connection.send(str(error))


@pytest.mark.slow
def test_a_killed_worker_of_an_evaluation_is_named_with_its_option(tmp_path):
    process, connection = start(killed_evaluation, tmp_path)
    assert connection.poll(300)
    said = connection.recv()
    assert "was killed by SIGKILL" in said
    assert said.endswith("lower --workers (eval.workers in a recipe) then")
    process.join(20)
