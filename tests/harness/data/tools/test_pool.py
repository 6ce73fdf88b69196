"""The processes that the data tools work with, and what they show while they work."""

from __future__ import annotations

import io
import logging
import os
import signal
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from rich.console import Console

from harness.data.tools.display import WorkDisplay
from harness.data.tools.pool import run_ordered
from harness.errors import UserError
from harness.logs import to_console


def _die(task, tick):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_worker_is_told(tmp_path):
    with pytest.raises(UserError, match=r"worker process \d+ was killed by SIGKILL; .* with fewer --workers than 1\.$"):
        list(run_ordered(_die, [1, 2], workers=1, watch=lambda samples: None))


def _double(task, tick):
    tick()
    return 2 * task


@pytest.mark.parametrize("workers", [0, 2])
def test_results_come_in_order_and_every_sample_is_counted(workers):
    seen = [0]
    assert list(run_ordered(_double, range(50), workers=workers, watch=seen.append)) == list(range(0, 100, 2))
    assert seen == sorted(seen) and seen[-1] <= 50


def _complain(task, tick):
    logging.getLogger("harness.somewhere").warning("task %d: %s", task, ValueError("odd"))
    logging.getLogger("harness.somewhere").info("of no interest")
    logging.getLogger("elsewhere").warning("not ours")
    if task == 2:
        with to_console():  # as a run of a study does, which keeps a log of its own
            logging.getLogger("harness.somewhere").warning("shown there")
    return task


@pytest.mark.parametrize("workers", [0, 1])
def test_what_workers_log_is_logged_here(caplog, workers):
    with caplog.at_level(logging.WARNING):
        assert list(run_ordered(_complain, [1, 2], workers=workers, watch=lambda samples: None)) == [1, 2]
    ours = [record for record in caplog.records if record.name == "harness.somewhere"]
    assert [record.getMessage() for record in ours] == ["task 1: odd", "task 2: odd"]
    assert {record.levelname for record in ours} == {"WARNING"}


@pytest.mark.parametrize("num_samples", [None, 40])
def test_how_far_it_is_is_shown(monkeypatch, num_samples):
    monkeypatch.setattr("harness.data.tools.display._PLAIN_SECONDS", 0)
    for terminal in (False, True):
        console = Console(file=io.StringIO(), force_terminal=terminal, width=120)
        with WorkDisplay("checking", "shards", 8, num_samples, done=(1, 10), console=console) as display:
            display.watch(5)
            display.unit_done()
        state = "15 samples, 2/8 shards" if num_samples is None else "15/40 samples, 2/8 shards"
        assert state in console.file.getvalue() and "checking" in console.file.getvalue()


def _sleep_long(task: Path, tick) -> None:
    """Ticks never, so only a signal ends it early."""
    task.touch()
    time.sleep(300)


def test_work_that_seldom_ticks_is_stopped_by_a_signal_and_what_waits_is_not_begun(tmp_path):
    tasks = [tmp_path / str(number) for number in range(3)]

    def watch(_: int) -> None:
        if tasks[0].exists():
            raise KeyboardInterrupt

    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        list(run_ordered(_sleep_long, tasks, workers=1, watch=watch, terminate=True))
    assert time.monotonic() - begin < 200
    assert not tasks[1].exists() and not tasks[2].exists()


def test_ctrl_c_while_a_worker_is_started_leaves_a_pool_that_ends(monkeypatch):
    """Interrupted inside it, the pool loses count of its workers, and waits for one that never ends."""
    finished = []

    def start(pool, real=ProcessPoolExecutor._spawn_process):
        os.kill(os.getpid(), signal.SIGINT)
        real(pool)
        finished.append(len(pool._processes))

    monkeypatch.setattr(ProcessPoolExecutor, "_spawn_process", start)
    with pytest.raises(KeyboardInterrupt):
        list(run_ordered(_double, [1, 2], workers=1, watch=lambda samples: None))
    assert finished == [1]
