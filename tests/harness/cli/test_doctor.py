"""clipkd doctor: exit codes, JSON, and one run of all that it checks."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import harness
from harness.cli import main
from harness.doctor import isolation
from harness.doctor.checks import all_checks
from harness.doctor.finding import Finding

ROOT = Path(harness.__file__).parents[1]


@pytest.fixture
def doctor(monkeypatch, capsys):
    """Run the command in this process with these findings; returns exit code, stdout and stderr."""

    def run(findings: list[Finding], *arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(isolation, "run_checks", lambda checks, folder: iter(findings))
        monkeypatch.setattr(sys, "argv", ["clipkd", "doctor", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        printed = capsys.readouterr()
        return caught.value.code or 0, printed.out, printed.err

    return run


@pytest.mark.parametrize(("level", "code"), [("ok", 0), ("skipped", 0), ("warning", 0), ("fault", 1)])
def test_only_a_fault_is_exit_code_1(doctor, level, code):
    found = [Finding("disk", level, "what was found", "what to do"), Finding("cpu", "ok", "two")]
    got, out, err = doctor(found)
    assert (got, err) == (code, "")
    assert "what was found" in out
    assert "-> what to do" in out
    got, out, err = doctor(found, "--json")
    assert (got, err) == (code, "")
    assert [row["level"] for row in json.loads(out)["findings"]] == [level, "ok"]


def test_a_folder_that_does_not_exist_is_wrong_usage(doctor, tmp_path):
    code, _, err = doctor([], "--folder", str(tmp_path / "none"))
    assert code == 2
    assert "doesnotexist" in re.sub(r"\W", "", err), "typer breaks its lines where the path is long"


def test_a_busy_machine_and_one_with_gpus_get_more_time(monkeypatch):
    monkeypatch.setattr("harness.doctor.checks.usable_cores", lambda: 2.0)
    limits = {}
    for load, tool in ((0.0, None), (4.0, None), (400.0, None), (0.0, "/bin/nvidia-smi")):
        monkeypatch.setattr("harness.doctor.checks.load", lambda load=load: load)
        monkeypatch.setattr("harness.doctor.checks.shutil.which", lambda _, tool=tool: tool)
        limits[load, tool] = {check.name: check.limit for check in all_checks()}
    usual = limits[0.0, None]
    assert limits[4.0, None] == {name: 2 * limit for name, limit in usual.items()}
    assert limits[400.0, None] == {name: 4 * limit for name, limit in usual.items()}
    assert limits[0.0, "/bin/nvidia-smi"]["losses"] == 4 * usual["losses"]
    assert limits[0.0, "/bin/nvidia-smi"]["disk"] == usual["disk"]


# The limits are for people who wait; a test on a busy machine does.
SCRIPT = """
import sys
from dataclasses import replace
from harness.cli import main
from harness.doctor import checks

table = [replace(check, limit=1200) for check in checks.all_checks()]
checks.all_checks = lambda: table
sys.argv = ["clipkd", "doctor", *sys.argv[1:]]
try:
    main()
finally:
    assert "torch" not in sys.modules, "an installation whose torch does not import is examined too"
"""


@pytest.mark.slow
def test_a_whole_run(tmp_path):
    (tmp_path / "command").mkdir()
    (tmp_path / "command" / "doctor_with_time.py").write_text(SCRIPT)
    # Checks must not import a file from the folder where the command is run.
    (tmp_path / "random.py").write_text("raise SystemExit('imported from the current folder')")
    command = [sys.executable, tmp_path / "command" / "doctor_with_time.py", "--json"]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    given = json.loads(done.stdout)
    levels = {row["check"]: row["level"] for row in given["findings"]}
    expected = {"versions", "cpu", "memory", "threads", "losses cpu", "gloo", "nccl", "open files"}
    expected |= {"/dev/shm", "disk space", "disk", "loader"}
    assert expected <= set(levels)
    assert done.returncode == (1 if given["faults"] else 0)
    assert given["faults"] == sum(row["level"] == "fault" for row in given["findings"])
    for name in ("versions", "cpu", "losses cpu", "loader"):  # whatever the machine
        assert "fault" not in [row["level"] for row in given["findings"] if row["check"] == name], given
