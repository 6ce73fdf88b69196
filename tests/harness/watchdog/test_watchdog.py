"""The watchdog names what stalls, once, and the sentence holds what one needs to mend it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from harness.watchdog import EXIT_STALLED, PATIENCE, watchdog
from harness.watchdog.messages import about_data
from harness.watchdog.worker_processes import DEAD, WorkerProcess, child_processes
from tests.harness.watchdog.bench import DEADLINE, Bench

ROOT = Path(__file__).parents[3]


def test_a_loop_that_moves_is_left_alone():
    bench = Bench()
    for step in range(1, 20):
        bench.watchdog.phase("data", step)
        bench.after(100)
        bench.watchdog.phase("step", step)
        bench.after(250)
    assert bench.said == []


def test_a_stall_is_told_once_then_as_it_doubles_and_when_it_is_over():
    bench = Bench()
    bench.watchdog.phase("step", 120)
    assert bench.after(295) == []
    (said,) = bench.after(5)
    assert "has been computing step 120 for 300 s" in said and f"py-spy dump --pid {os.getpid()}" in said
    assert bench.after(295) == []
    assert "for 10 min" in bench.after(5)[0]
    assert bench.after(595) == []
    assert "for 20 min" in bench.after(5)[0]
    bench.watchdog.phase("data", 121)
    (over,) = bench.after(5)
    assert over.endswith("continues at step 121 after 20 min in phase step")
    assert bench.after(290) == []


@pytest.mark.parametrize("phase", sorted(PATIENCE))
def test_what_takes_long_by_nature_has_a_longer_limit(phase):
    bench = Bench()
    bench.watchdog.phase(phase, 7, "set zeroshot")
    assert bench.after(300 * PATIENCE[phase] - 5) == []
    assert "(set zeroshot)" in bench.after(5)[0]


def test_the_first_step_may_take_as_long_as_compiling_does():
    bench = Bench()
    bench.watchdog.phase("step", 1)
    assert bench.after(2995) == []
    assert "computing step 1 for 50 min" in bench.after(5)[0]
    bench.watchdog.phase("data", 1)
    bench.after(5)
    assert bench.after(290) == []
    assert "the next batch at step 1" in bench.after(5)[0]


def test_without_a_limit_nothing_is_said_and_no_thread_runs():
    bench = Bench(limit=None)
    before = threading.active_count()
    with bench.watchdog as watchdog:
        assert threading.active_count() == before
        watchdog.phase("step", 1)
        assert bench.after(1e5, every=1e4) == []


def test_a_process_that_was_stopped_is_not_taken_for_a_stall():
    bench = Bench(abort_after=600)
    bench.watchdog.phase("data", 5)
    (said,) = bench.after(4000, every=4000)
    assert "stood still as a whole for 67 min at step 5" in said
    assert bench.after(295) == [] and bench.left == []


def test_abort_after_ends_the_process_with_the_stacks_of_its_threads(capfd):
    bench = Bench(abort_after=400)
    bench.watchdog.phase("exchange", 9)
    bench.after(395)
    assert bench.left == []
    (said,) = bench.after(5)
    assert bench.left == [EXIT_STALLED] == [74]
    assert "has waited 400 s for the other ranks at step 9: it ends itself with exit code 74" in said
    assert "test_abort_after_ends_the_process" in capfd.readouterr().err


def test_a_process_that_ends_itself_really_ends():
    code = """
import sys, threading
from harness.watchdog import Watchdog
with Watchdog(None, 0, 1, 0.1, warn=print, abort_after=0.2) as watchdog:
    watchdog.phase("data", 4)
    threading.Event().wait()
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == EXIT_STALLED
    assert "for the next batch at step 4: it ends itself with exit code 74; stacks follow" in done.stdout
    assert "most recent call first" in done.stderr and "wait" in done.stderr


# In a process of its own: the process that runs the tests may have any number of children and of files open.
_LOADS = """
import os, subprocess, sys, threading
from harness.watchdog import Watchdog

worker = "file = open(sys.argv[1], 'rb'); print('ready', flush=True); input()"
path, inherited = sys.argv[1], os.open(sys.argv[2], os.O_RDONLY)
told = {text: threading.Event() for text in ("has waited", "continues at step 1")}

def say(text):
    # On a busy machine another comes between: the whole process stood still.
    print(text, flush=True)
    for part, event in told.items():
        if part in text:
            event.set()

pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
with subprocess.Popen([sys.executable, "-c", "import sys; " + worker, path], pass_fds=(inherited,), **pipes) as process:
    process.stdout.readline()
    print("worker", process.pid, flush=True)
    with Watchdog(None, 0, 1, 0.5, warn=say) as watchdog:
        watchdog.phase("data", 1)
        told["has waited"].wait()
        watchdog.phase("step", 1)
        told["continues at step 1"].wait()
    process.kill()
"""


@pytest.mark.skipif(not Path("/proc/self/fdinfo").is_dir(), reason="only Linux tells of other processes' files")
def test_a_loader_that_hangs_is_told_with_its_worker_and_the_file_it_reads(tmp_path):
    path, font = tmp_path / "00007.tar", tmp_path / "font.ttf"
    for file in (path, font):
        file.write_bytes(b"content")
    # A worker inherits what its parent has open, here a file that no data is in.
    command = [sys.executable, "-c", _LOADS, str(path), str(font)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == 0, done.stderr
    first, *said = done.stdout.splitlines()
    stall = next(text for text in said if "has waited" in text)
    assert f"for the next batch at step 1; of the data workers pid {first.split()[1]} " in stall
    assert f"is alive with {path} open" in stall and "check the disk or network" in stall


def test_of_many_workers_those_that_tell_most_come_first():
    idle = [WorkerProcess(pid, "alive", ()) for pid in range(1, 7)]
    reading, dead = WorkerProcess(8, "alive", ("/data/00001.tar",)), WorkerProcess(9, DEAD, ())
    text = about_data([*idle, reading, dead], ())
    assert text.startswith(
        "of the data workers pid 9 is dead, pid 8 is alive with /data/00001.tar open, pid 1 is alive, "
    )


@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="only Linux tells of other processes' states")
@pytest.mark.parametrize(
    ("sent", "says"), [(signal.SIGSTOP, "is stopped: `kill -CONT {pid}`"), (signal.SIGKILL, "{pid} has died")]
)
def test_a_worker_that_is_stopped_or_dead_is_told(sent, says, monkeypatch):
    worker = subprocess.Popen(
        [sys.executable, "-c", "print('ready', flush=True); input()"],
        **{"stdin": subprocess.PIPE, "stdout": subprocess.PIPE},
    )
    try:
        worker.stdout.readline()
        # The process that runs the tests may have other children, dead ones among them.
        mine = worker.pid
        monkeypatch.setattr(
            watchdog, "child_processes", lambda pid: [child for child in child_processes(pid) if child.pid == mine]
        )
        worker.send_signal(sent)
        bench = Bench()
        bench.watchdog.phase("data", 1)
        deadline = time.monotonic() + DEADLINE
        # The signal has been sent, but need not have arrived.
        while says.format(pid=worker.pid) not in (said := bench.after(300 * 2 ** len(bench.said), every=100)[-1]):
            assert time.monotonic() < deadline, said
    finally:
        worker.kill()
        worker.wait()
