"""A step in its own process: what ends it, what starts it again, and that nothing of it stays behind."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import psutil
import pytest

from benchmarks.gpu import child
from benchmarks.gpu.child import Ending, run_step


@pytest.fixture
def step(tmp_path, monkeypatch):
    monkeypatch.setattr(child, "LEAST_SECONDS", 0.0)

    def run(code: str, limit: float = 30.0, stall: float = 30.0) -> Ending:
        command = [sys.executable, "-S", "-c", f"journal = {str(tmp_path / 'journal')!r}\n{code}"]
        return run_step(command, limit=limit, stall=stall, journal=tmp_path / "journal", log=tmp_path / "log")

    return run


def test_a_step_that_ends_well_is_started_once(step):
    ending = step("pass")
    assert (ending.status, ending.starts, ending.note) == ("ok", 1, "")


def test_a_crash_in_a_new_case_starts_it_again_and_one_without_progress_does_not(step):
    ending = step(
        "text = open(journal, 'a+'); text.seek(0)\nif len(text.read()) < 3: text.write('x')\nraise SystemExit('why')"
    )
    assert (ending.status, ending.starts, ending.note) == ("failed", 4, "why")


@pytest.mark.slow
def test_a_step_that_hangs_is_killed_with_its_children(step, tmp_path):
    ending = step(
        "import subprocess, sys, time\n"
        "other = subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(other.pid)); time.sleep(60)",
        stall=1.5,
    )
    assert ending.status == "stalled"
    pid = int(Path(tmp_path / "pid").read_text())
    stop = time.monotonic() + 5
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < stop, "the step's child lives on"
        time.sleep(0.05)


def test_the_time_limit_ends_a_step_that_goes_on(step):
    ending = step("import time\nwhile True: open(journal, 'a').write('x'); time.sleep(0.05)", limit=1.0)
    assert (ending.status, ending.starts) == ("out of time", 1)
