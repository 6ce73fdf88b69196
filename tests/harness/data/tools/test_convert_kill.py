"""`clipkd data convert` as a real process that is killed or interrupted in the middle."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.data.tools.convert import convert
from tests.harness.data.pairs import pair, picture, write_tar
from tests.harness.data.tools.conversions import config, contents

ROWS, PER_SHARD = 300, 2
SECONDS = 90  # more than a start takes on a machine that is busy with other tests


def write_source(folder: Path, to: str) -> Path:
    """Write many small units of work: a CSV of one image, or shards."""
    folder.mkdir()
    if to == "csv":
        for number in range(ROWS // PER_SHARD):
            write_tar(folder / f"{number:05d}.tar", [pair(n) for n in range(PER_SHARD)])
        return folder
    (folder / "image.png").write_bytes(picture(1))
    with (folder / "pairs.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("filepath", "title"), *(("image.png", f"number {n}") for n in range(ROWS))])
    return folder / "pairs.csv"


def finished_units(out: Path) -> int:
    return len(list((out / ".convert").glob("*.json")))


def living(group: int) -> list[int]:
    """The processes of a group that still run; who is a zombie is over."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, pgrp = stat.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue  # it has just ended
        if int(pgrp) == group and state != "Z":
            found.append(int(stat.parent.name))
    return found


def wait_until(condition, what: str) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.002)


@pytest.mark.slow
@pytest.mark.parametrize(("to", "how", "code"), [("shards", "kill", -signal.SIGKILL), ("csv", "interrupt", 130)])
def test_a_conversion_goes_on_after_a_real_end(tmp_path, to, how, code):
    source, out = write_source(tmp_path / "source", to), tmp_path / "out"
    command = [sys.executable, "-m", "harness", "data", "convert", str(source), "--out", str(out), "--workers", "2"]
    command += ["--samples-per-shard", str(PER_SHARD)]
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: finished_units(out) >= 3 or process.poll() is not None, "it gets to work")
        if how == "kill":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does
        _, told = process.communicate(timeout=SECONDS)
        assert process.returncode == code, told
        wait_until(lambda: not living(process.pid), "no worker outlives the command")
    finally:
        for number in living(process.pid):
            os.kill(number, signal.SIGKILL)
    assert 3 <= finished_units(out) < ROWS // PER_SHARD, "it was in the middle"
    assert "Traceback" not in told and ("interrupted" in told) == (how == "interrupt"), told
    kept = {path: path.stat().st_ino for path in out.glob("*.tar")}

    for folder in (out, tmp_path / "whole"):
        convert(config(source), folder, workers=0, samples_per_shard=PER_SHARD)
    assert contents(out) == contents(tmp_path / "whole")
    # A shard that was in place without its record, of each worker one at the most, is written again.
    assert sum(path.stat().st_ino != inode for path, inode in kept.items()) <= 2
