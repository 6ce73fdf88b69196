"""Two processes that exchange tensors, and what is said when they cannot."""

import os
import socket
import time
from multiprocessing import Pipe

import pytest

from harness.doctor import processes
from harness.doctor.processes import check_gloo, exchange
from tests.fork_server import fork_server

LOOPBACK = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
PATIENT = 300.0  # seconds; nobody waits for them unless the machine stands still


@pytest.fixture
def warm(monkeypatch):
    """Processes that have imported torch already, from the tests' own server."""
    server = fork_server()
    monkeypatch.setattr(processes.multiprocessing, "get_context", lambda _: server)


@pytest.mark.slow
def test_two_processes_gather_over_gloo(warm):
    assert exchange("gloo", 2, LOOPBACK, PATIENT) is None


def test_an_interface_that_does_not_exist_is_a_problem(warm):
    assert "nope0" in exchange("gloo", 2, "nope0", PATIENT)


def test_a_process_that_fails_is_a_problem(warm):
    assert exchange("no such backend", 1, LOOPBACK, PATIENT) is not None


def test_a_process_that_dies_or_stands_still_is_a_problem():
    ours, theirs = Pipe(duplex=False)
    assert processes._first_problem([ours], 0.0) == "1 of 1 processes did not answer in time"
    theirs.close()
    assert processes._first_problem([ours], PATIENT + time.monotonic()) == "a process died"


def answering(monkeypatch, answers: dict[str | None, str | None]) -> None:
    """`exchange` gives these answers by the interface that it is asked for."""
    monkeypatch.setattr(processes, "exchange", lambda _, world, interface=None: answers[interface])


def test_gloo_works(monkeypatch):
    answering(monkeypatch, {None: None})
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    assert check_gloo().says == "all_gather over 2 processes"
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    assert check_gloo().says == "all_gather over 2 processes (GLOO_SOCKET_IFNAME=lo)"


def test_gloo_that_works_over_the_loopback_only_says_so(monkeypatch):
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    answering(monkeypatch, {None: "no route", LOOPBACK: None})
    row = check_gloo()
    assert (row.level, row.says) == ("fault", f"no route; over {LOOPBACK} it works")
    assert row.fix.startswith(f"export GLOO_SOCKET_IFNAME={LOOPBACK} ")
    answering(monkeypatch, {None: "no route", LOOPBACK: "no route"})
    row = check_gloo()
    assert (row.level, row.says) == ("fault", "no route")
    assert "set GLOO_SOCKET_IFNAME to an interface" in row.fix


def test_a_wrong_interface_in_the_environment_is_named(monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "nope0")
    answering(monkeypatch, {None: "Unable to find address", LOOPBACK: None})
    row = check_gloo()
    assert row.level == "fault"
    assert "GLOO_SOCKET_IFNAME=nope0 is not an interface of this machine" in row.says
    assert LOOPBACK in row.fix
    assert os.environ["GLOO_SOCKET_IFNAME"] == "nope0"


@pytest.mark.parametrize(
    ("gpus", "problem", "level"), [(0, None, "skipped"), (1, None, "ok"), (4, "NCCL error", "fault")]
)
def test_nccl(monkeypatch, gpus, problem, level):
    asked = []
    monkeypatch.setattr(processes, "check_gloo", lambda: None)
    monkeypatch.setattr(
        processes, "exchange", lambda backend, world, seconds: asked.append((backend, world)) or problem
    )
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    monkeypatch.setattr("torch.version.cuda", "13.0")
    _, row = processes.check_processes(None)
    assert (row.check, row.level) == ("nccl", level)
    assert asked == ([] if gpus == 0 else [("nccl", min(2, gpus))])
