"""Whatever ends a training run, its child processes are gone within 10 s: real trainers, forked from a warm process."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest
import torch

from harness.cli.guard import TERMINATED
from harness.errors import Terminated, UserError
from harness.train import Trainer, train
from harness.train.saving import capture_state
from harness.watchdog import EXIT_STALLED, Watchdog
from tests.harness import tiny
from tests.harness.data.forked import children, running, start_trainer, until_gone
from tests.harness.data.pairs import write_csv
from tests.harness.evaluate.eval_sets import write_zeroshot

CPU = torch.device("cpu")
SECONDS = 10
FULL = pytest.mark.slow


def trainer(connection, folder: Path, at_step_2: str) -> None:
    """Train with two data workers; in step 2 name the children and do as asked."""
    take = Trainer.train_step

    def step(self: Trainer, batch):
        if self.schedule.last_epoch == 1:
            connection.send(children())
            if at_step_2 == "fail":
                raise ZeroDivisionError("a bug")
            if at_step_2 == "hang":
                time.sleep(300)
        time.sleep(0.05)
        return take(self, batch)

    Trainer.train_step = step
    run(folder, stall_abort_timeout=1.0 if at_step_2 == "hang" else None)


def evaluator(connection, folder: Path) -> None:
    """Train a step, then hang in its evaluation, whose worker decodes images."""
    phase = Watchdog.phase
    before = children()

    def hang(self: Watchdog, name: str, step: int, detail: str = "") -> None:
        phase(self, name, step, detail)
        if name == "evaluation" and len(found := children() - before) > 2:
            connection.send(found)
            time.sleep(300)

    Watchdog.phase = hang
    sets = [
        {"name": "val", "kind": "zeroshot", "path": str(write_zeroshot(folder / "val", [0, 1] * 20, ["a", "b"]).path)}
    ]
    run(folder, evaluation={"sets": sets, "every": 1, "workers": 1})


def run(folder: Path, evaluation: dict | None = None, **sections) -> None:
    """A run of many steps; the process ends as the command does."""
    recipe = tiny.recipe(
        data={"train": str(write_csv(folder / "csv", 40)), "cache": "none", "workers": 2},
        train={"batch_size": 8, "steps": 500, "stall_timeout": 0.5, **sections},
        eval=evaluation or {},
    )
    try:
        train(recipe, folder / "run", command="test")
    except Terminated:
        sys.exit(TERMINATED)


def started(target, *arguments) -> tuple:
    """The trainer in its second step, and its children."""
    process, connection = start_trainer(target, *arguments)
    assert connection.poll(120), "the trainer takes steps"
    found = connection.recv()
    assert len(found) >= 2 and running(found) == found
    return process, found


@pytest.mark.parametrize(
    ("at_step_2", "signals", "code"),
    [
        pytest.param("hang", [signal.SIGKILL], -signal.SIGKILL, id="killed", marks=FULL),
        pytest.param("fail", [], 1, id="error in a step", marks=FULL),
        pytest.param("go on", [signal.SIGTERM, signal.SIGTERM], TERMINATED, id="SIGTERM twice", marks=FULL),
        pytest.param("hang", [], EXIT_STALLED, id="ended by the watchdog", marks=FULL),
        pytest.param("hang", [signal.SIGINT], 1, id="interrupted", marks=FULL),
    ],
)
def test_no_child_outlives_its_trainer(tmp_path, at_step_2, signals, code):
    process, found = started(trainer, tmp_path, at_step_2)
    for number in signals:
        os.kill(process.pid, number)
        time.sleep(0.2)
    process.join(60)
    assert process.exitcode == code
    until_gone(found, SECONDS)


@pytest.mark.slow
def test_no_evaluation_worker_outlives_its_trainer(tmp_path):
    process, found = started(evaluator, tmp_path)
    process.kill()
    process.join()
    until_gone(found, SECONDS)


def test_a_trainer_that_cannot_resume_closes_its_loader(tmp_path):
    before = children()
    recipe = tiny.recipe(
        data={"train": str(write_csv(tmp_path / "csv", 40)), "cache": "none", "workers": 2}, train={"batch_size": 8}
    )
    made = Trainer(recipe, tmp_path, CPU)
    state = capture_state(made, 9)
    made.loader.close()
    with pytest.raises(UserError, match="the checkpoint is of step 9, beyond the 4") as caught:
        Trainer(recipe, tmp_path, CPU, start=state)
    assert caught.tb is not None  # which holds the trainer: its workers do not end for want of a reference
    until_gone(children() - before, SECONDS)
