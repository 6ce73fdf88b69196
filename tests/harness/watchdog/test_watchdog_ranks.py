"""Of several ranks the watchdog names the one that holds the others up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.watchdog import Watchdog
from harness.watchdog.heartbeat import ENDED, read_heartbeat
from harness.watchdog.source_line import SourceLine, source_line_of
from tests.harness.watchdog.bench import DEADLINE, Bench

ROOT = Path(__file__).parents[3]


def pair(folder: Path, phase: str = "exchange", step: int = 120) -> tuple[Bench, Bench]:
    """Rank 0, which waits, and rank 1; both have beaten."""
    benches = Bench(folder, 0, 2), Bench(folder, 1, 2)
    benches[0].watchdog.phase(phase, step)
    for bench in benches:
        bench.watchdog.heartbeats.beat()
    return benches


def both(waiting: Bench, other: Bench, seconds: float = 300, every: float = 5.0) -> list[str]:
    """Time passes for both, what the waiting one says; the other beats, but is not checked."""
    said = []
    for _ in range(round(seconds / every)):
        other.now += every
        other.watchdog.heartbeats.beat()
        said += waiting.after(every, every)
    return said


def test_the_rank_that_is_behind_is_named_with_what_it_does(tmp_path):
    waiting, other = pair(tmp_path)
    other.watchdog.phase("data", 120, "shards/00007.tar")
    (said,) = both(waiting, other)
    host = read_heartbeat(tmp_path, 1, 2).host
    assert said.startswith(
        f"rank 0 on host {host} has waited 300 s for the other ranks at step 120; rank 1 on host {host}"
    )
    assert "has waited 300 s for the next batch at step 120 (shards/00007.tar); look at the log" in said
    assert said.endswith(f"machine of rank 1 first, `py-spy dump --pid {os.getpid()}` on {host} shows where it is")


def test_a_silent_rank_is_named_with_its_last_heartbeat(tmp_path):
    waiting, other = pair(tmp_path)
    other.watchdog.phase("data", 119)
    other.watchdog.heartbeats.beat()
    (said,) = waiting.after(300)
    assert "rank 1 on host" in said and "last beat 300 s ago at step 119 in phase data" in said


def test_a_rank_that_ended_is_named_with_its_error(tmp_path):
    waiting, other = pair(tmp_path)
    with pytest.raises(ValueError), other.watchdog as watchdog:
        watchdog.phase("data", 119)
        raise ValueError("no such shard")
    assert read_heartbeat(tmp_path, 1, 2).phase == ENDED
    (said,) = waiting.after(300)
    assert "ended 300 s ago at step 119 (ValueError: no such shard)" in said and "py-spy" not in said


def test_a_rank_that_never_started_is_named(tmp_path):
    waiting = Bench(tmp_path, 0, 2)
    waiting.watchdog.phase("exchange", 2)
    (said,) = waiting.after(300)
    assert "rank 1 has written no heartbeat: it never started" in said


def test_heartbeats_of_a_run_with_another_world_size_do_not_count(tmp_path):
    Bench(tmp_path, 1, 4).watchdog.heartbeats.beat()
    assert read_heartbeat(tmp_path, 1, 4) is not None
    assert read_heartbeat(tmp_path, 1, 2) is None


def test_when_all_wait_the_network_is_to_blame(tmp_path):
    waiting, other = pair(tmp_path)
    other.watchdog.phase("exchange", 120)
    (said,) = both(waiting, other)
    assert "all other ranks are alive and at the same step" in said and "NCCL_DEBUG=INFO" in said


def test_a_slow_rank_blames_no_other_that_waits_for_it(tmp_path):
    slow, other = pair(tmp_path, phase="step")
    other.watchdog.phase("exchange", 120)
    (said,) = both(slow, other)
    assert "has been computing step 120" in said and "rank 1" not in said and "py-spy dump" in said


def within_a_step(folder: Path, monkeypatch) -> tuple[Bench, Bench]:
    """Rank 0, which waits in a loss, and rank 1, which computes in it."""
    places = {
        "rank 0": SourceLine("columns.py:113 in gather", waits=True),
        "rank 1": SourceLine("own_loss.py:12 in forward"),
    }
    monkeypatch.setattr("harness.watchdog.watchdog.source_line_of", places.get)
    benches = Bench(folder, 0, 2), Bench(folder, 1, 2)
    for name, bench in zip(places, benches, strict=True):
        bench.watchdog._loop = name
        bench.watchdog.phase("step", 120)
    return benches


def test_a_rank_that_computes_while_another_waits_for_it_within_a_step_is_named(tmp_path, monkeypatch):
    waiting, other = within_a_step(tmp_path, monkeypatch)
    (said,) = both(waiting, other)
    assert "has been computing step 120 for 300 s; rank 1 on host" in said
    assert "has been computing step 120 for 300 s at own_loss.py:12 in forward; look at the log" in said


def test_a_rank_that_computes_within_a_step_blames_no_other_that_waits_for_it(tmp_path, monkeypatch):
    other, computing = within_a_step(tmp_path, monkeypatch)
    (said,) = both(computing, other)
    assert "rank 0" not in said and "py-spy dump" in said


def test_two_ranks_that_both_wait_within_a_step_blame_nobody(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "harness.watchdog.watchdog.source_line_of", lambda thread: SourceLine("step.py:40 in backward", waits=True)
    )
    waiting, other = pair(tmp_path, phase="step")
    other.watchdog.phase("step", 120)
    (said,) = both(waiting, other)
    assert "rank 1" not in said


def frames(*modules: str) -> SimpleNamespace | None:
    """A stack as Python shows it, the outermost frame first."""
    frame = None
    for line, module in enumerate(modules, 1):
        code = SimpleNamespace(co_filename=f"/home/user/{module}.py", co_name="call")
        frame = SimpleNamespace(f_globals={"__name__": module}, f_lineno=line, f_code=code, f_back=frame)
    return frame


@pytest.mark.parametrize(
    ("modules", "place"),
    [
        (["harness", "own_loss"], SourceLine("own_loss.py:2 in call")),
        (["harness", "own_loss", "torch.nn.functional"], SourceLine("own_loss.py:2 in call")),
        (["harness", "kdlosses", "torch.distributed.c10d"], SourceLine("kdlosses.py:2 in call", waits=True)),
        (["harness", "torch._tensor", "torch.autograd.graph"], SourceLine("harness.py:1 in call", waits=True)),
        (["harness", "torch.autograd.graph", "own_backward"], SourceLine("own_backward.py:3 in call")),
        (["torchdata", "torch.distributed_like"], SourceLine("torchdata.py:1 in call")),
        ([], SourceLine()),
    ],
)
def test_a_place_is_the_innermost_line_that_is_not_torchs(monkeypatch, modules, place):
    monkeypatch.setattr(sys, "_current_frames", lambda: {7: frames(*modules)})
    assert source_line_of(7) == place


def test_of_many_ranks_the_first_few_are_named(tmp_path):
    waiting = Bench(tmp_path, 0, 9)
    waiting.watchdog.phase("exchange", 2)
    (said,) = waiting.after(300)
    assert "rank 4 has written no heartbeat: it never started and 4 more; look at" in said
    assert "these ranks" in said and "rank 5" not in said


def test_a_folder_that_hangs_is_named(tmp_path):
    waiting, _ = pair(tmp_path)
    waiting.watchdog.heartbeats.beat = lambda: None  # as if the last one had not returned
    (said,) = waiting.after(300)
    assert f"its heartbeat could not be written for 300 s either: check the file system of {tmp_path}" in said


def test_heartbeats_that_cannot_be_written_are_told_once(tmp_path):
    (tmp_path / "heartbeats").write_text("in the way")
    bench = Bench(tmp_path, 0, 2)
    (said,) = bench.after(100)
    assert "cannot write its heartbeat" in said and str(tmp_path) in said


def test_heartbeats_do_not_make_a_run_folder_anew_that_was_deleted(tmp_path):
    bench = Bench(tmp_path / "run", 0, 4)
    bench.watchdog.heartbeats.beat()
    assert not (tmp_path / "run").exists()


def test_one_process_writes_no_heartbeats(tmp_path):
    with Watchdog(tmp_path, 0, 1, 5) as watchdog:
        watchdog.phase("data", 1)
    assert list(tmp_path.iterdir()) == []


OTHER = """
import sys, threading
from pathlib import Path
from harness.watchdog import Watchdog
with Watchdog(Path(sys.argv[1]), 1, 2, 2.0, warn=print) as watchdog:
    watchdog.phase("data", 119)
    print("ready", flush=True)
    sys.stdin.readline()
"""


def await_step(folder: Path, step: int) -> None:
    """Until rank 1's heartbeat has reached the step."""
    deadline = time.monotonic() + DEADLINE
    while read_heartbeat(folder, 1, 2).step != step:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.distributed
def test_a_rank_stopped_by_a_signal_is_found_by_the_other(tmp_path):
    command = [sys.executable, "-c", OTHER, str(tmp_path)]
    other = subprocess.Popen(command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert other.stdout.readline() == "ready\n"
        await_step(tmp_path, 119)
        other.send_signal(signal.SIGSTOP)
        said: list[str] = []
        found = threading.Event()

        def say(text: str) -> None:
            said.append(text)
            if "last beat" in text:
                found.set()

        with Watchdog(tmp_path, 0, 2, 1.0, warn=say) as watchdog:
            watchdog.phase("step", 119)
            watchdog.phase("exchange", 120)
            assert found.wait(DEADLINE), said
            other.send_signal(signal.SIGCONT)
            other.communicate("go on\n", timeout=DEADLINE)
        stall = next(text for text in said if "last beat" in text)
        assert "at step 119 in phase data; look at the log and the machine of rank 1 first" in stall
        assert f"`py-spy dump --pid {other.pid}`" in stall
        assert json.loads((tmp_path / "heartbeats/rank-0001.json").read_text())["phase"] == ENDED
    finally:
        other.kill()
        other.wait()
