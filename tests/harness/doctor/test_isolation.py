"""A check that raises, crashes, hangs or cannot be imported is a row, and the others are not disturbed."""

import os
import signal
import subprocess
import sys
import time

import pytest

from harness.doctor.checks import Check
from harness.doctor.isolation import run_checks
from tests.harness.data.forked import running, until_gone

FAULTY = "tests.harness.doctor.faulty"


def check(name: str, limit: float = 600, **keywords: object) -> Check:
    return Check(name, f"{FAULTY}:{name}", limit, hint="what to do", **keywords)


def test_whatever_a_check_does_is_a_row(tmp_path):
    checks = [
        check("raises"),
        check("crashes"),
        Check("absent", "no.such:module", 600, hint="install"),
        check("lingers"),
    ]
    found = list(run_checks([*checks, check("fine", alone=True)], tmp_path))
    assert [(row.check, row.level, row.says, row.fix) for row in found] == [
        ("raises", "warning", "found before", ""),
        ("raises", "fault", "the check ended with exit code 1: ValueError: what went wrong", "what to do"),
        ("crashes", "ok", "found before", ""),
        ("crashes", "fault", "the check ended with SIGSEGV", "what to do"),
        ("absent", "fault", "the check ended with exit code 1: ModuleNotFoundError: No module named 'no'", "install"),
        ("lingers", "ok", "a thread stays", ""),
        ("fine", "ok", f"looked at {tmp_path.name}", ""),
    ]


@pytest.mark.slow
def test_a_check_that_hangs_is_ended_at_its_limit_and_the_next_one_runs(tmp_path):
    (tmp_path / "started").touch()
    found = list(run_checks([check("hangs", limit=2), check("fine")], tmp_path))
    assert [(row.check, row.level, row.says) for row in found] == [
        ("hangs", "fault", "the check did not end within 2 s"),
        ("fine", "ok", f"looked at {tmp_path.name}"),
    ]
    until_gone({int(number) for number in (tmp_path / "started").read_text().split()})


def test_a_command_that_is_killed_leaves_no_process_of_its_checks(tmp_path):
    script = (
        "import sys; from pathlib import Path; from harness.doctor.checks import Check; "
        "from harness.doctor.isolation import run_checks; "
        f"list(run_checks([Check('hangs', '{FAULTY}:hangs', 600)], Path(sys.argv[1])))"
    )
    command = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)])
    while not (tmp_path / "started").exists() or len((tmp_path / "started").read_text().split()) < 2:
        assert command.poll() is None
        time.sleep(0.05)
    left = {int(number) for number in (tmp_path / "started").read_text().split()}
    assert running(left) == left
    os.kill(command.pid, signal.SIGKILL)
    command.wait()
    until_gone(left, 60)
