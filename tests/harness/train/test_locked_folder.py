"""One run, one folder: a second run is refused and changes nothing; one that was killed is in nobody's way."""

from __future__ import annotations

import os
import signal
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness import runs
from harness.errors import UserError
from harness.runs import lock_run_folder
from harness.train import Trainer, train
from tests.harness import tiny
from tests.harness.data.forked import children, running, start_trainer, until_gone
from tests.harness.data.pairs import write_csv

SENTENCE = (
    r"^another training is running in .*run \(process {} on .*, since .*\); wait for it to finish, end it, or choose"
)


def content(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize(
    "how",
    [
        pytest.param({}, id="plain", marks=pytest.mark.slow),
        pytest.param({"resume": True}, id="resume"),
        pytest.param({"overwrite": True}, id="overwrite", marks=pytest.mark.slow),
    ],
)
def test_a_second_run_is_refused_and_the_folder_is_untouched(tmp_path, how):
    out = tmp_path / "run"
    train(tiny.recipe(), out)
    (out / "summary.json").unlink()  # as if it were still going on
    with lock_run_folder(out):
        before = content(out)
        with pytest.raises(UserError, match=SENTENCE.format(os.getpid())):
            train(tiny.recipe(optim={"lr": 5e-3}), out, **how)
        assert content(out) == before
    assert train(tiny.recipe(), out, overwrite=True)["steps"] == 4


def test_a_run_that_finishes_before_its_folder_is_locked_is_left_alone(tmp_path, monkeypatch):
    @contextmanager
    def too_late(*_):
        (tmp_path / "run" / "summary.json").write_text("{}")
        yield

    monkeypatch.setattr(runs, "hold_lock", too_late)
    with pytest.raises(UserError, match="already holds a finished run"):
        train(tiny.recipe(), tmp_path / "run", overwrite=True)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["summary.json"]


def trainer(connection, folder: Path) -> None:
    """Train with two data workers; in step 2 name the children and wait to be killed."""
    take = Trainer.train_step

    def step(self: Trainer, batch):
        if self.schedule.last_epoch == 1:
            connection.send(children())
            time.sleep(300)
        return take(self, batch)

    Trainer.train_step = step
    train(recipe(folder, 2), folder / "run", command="test")


def recipe(folder: Path, workers: int):
    return tiny.recipe(
        data={"train": str(folder / "csv" / "pairs.csv"), "cache": "none", "workers": workers},
        train={"batch_size": 8, "steps": 3},
    )


@pytest.mark.slow
def test_a_run_holds_its_folder_until_it_is_killed_and_its_workers_do_not(tmp_path):
    assert write_csv(tmp_path / "csv", 40) == tmp_path / "csv" / "pairs.csv"
    process, connection = start_trainer(trainer, tmp_path)
    assert connection.poll(120), "the trainer takes steps"
    workers = connection.recv()
    with pytest.raises(UserError, match=SENTENCE.format(process.pid)):
        train(recipe(tmp_path, 0), tmp_path / "run", overwrite=True)
    for worker in workers:
        os.kill(worker, signal.SIGSTOP)  # or they would end with their trainer
    try:
        process.kill()
        process.join()
        assert running(workers) == workers
        assert train(recipe(tmp_path, 0), tmp_path / "run", resume=True)["steps"] == 3
    finally:
        for worker in workers:
            os.kill(worker, signal.SIGCONT)
    until_gone(workers)
