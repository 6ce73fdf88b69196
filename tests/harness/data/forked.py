"""Processes forked from the warm one that runs the tests: a start costs no import."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any

import psutil
import torch

from tests.fork_server import fork_server


def start(target: Callable[..., object], *arguments: object) -> tuple[BaseProcess, Any]:
    """Run ``target(connection, *arguments)`` in a fork; returns the process and the other end of its connection."""
    return _start(multiprocessing.get_context("fork"), target, arguments)


def start_trainer(target: Callable[..., object], *arguments: object) -> tuple[BaseProcess, Any]:
    """The same for a target that runs backward: forked from a server that has imported the trainer and nothing more.

    A backward pass over fake tensors starts autograd's device threads, and torch refuses one in forks of that process.
    """
    return _start(fork_server(), target, arguments)


def _start(context: Any, target: Callable[..., object], arguments: tuple[object, ...]) -> tuple[BaseProcess, Any]:
    ours, theirs = context.Pipe()
    process = context.Process(target=_run, args=(target, theirs, *arguments))
    process.start()
    theirs.close()
    return process, ours


def _run(target: Callable[..., object], *arguments: object) -> None:
    multiprocessing.set_start_method("fork", force=True)  # as in a process of its own
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    torch.set_num_threads(1)  # OpenMP's threads did not survive the fork
    target(*arguments)


def children() -> set[int]:
    """Process ids of this process's children."""
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return {int(number) for number in file.read().split()}


def running(processes: set[int]) -> set[int]:
    """Those that run; a zombie does not."""
    found = set()
    for process in processes:
        try:
            if psutil.Process(process).status() != psutil.STATUS_ZOMBIE:
                found.add(process)
        except psutil.NoSuchProcess:
            continue
    return found


def until_gone(processes: set[int], seconds: float = 20) -> None:
    """Wait until none of these runs any more."""
    end = time.monotonic() + seconds
    while left := running(processes):
        assert time.monotonic() < end, f"{left} still run after {seconds} s"
        time.sleep(0.05)
