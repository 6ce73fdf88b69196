"""Ctrl-C while processes are started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from harness.interrupts import deferred_interrupt


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_the_block_is_done_before_it_is_interrupted():
    before, done = signal.getsignal(signal.SIGINT), []
    with pytest.raises(KeyboardInterrupt), deferred_interrupt():
        interrupt()
        done.append(1)
    assert done and signal.getsignal(signal.SIGINT) is before


def test_without_a_signal_nothing_changes():
    before = signal.getsignal(signal.SIGINT)
    with deferred_interrupt():
        pass
    assert signal.getsignal(signal.SIGINT) is before


def test_a_signal_that_is_ignored_stays_so(monkeypatch):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with deferred_interrupt():
            interrupt()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_leaves_the_signal_alone():
    inside = []

    def block() -> None:
        with deferred_interrupt():
            inside.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=block)
    thread.start()
    thread.join()
    assert inside == [signal.getsignal(signal.SIGINT)]


_BORN_DEAF = """
import multiprocessing, signal
from harness.interrupts import start_fork_server

start_fork_server()

def blocked():
    return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())

with multiprocessing.get_context("forkserver").Pool(1) as pool:
    print(blocked(), pool.apply(signal.pthread_sigmask, (signal.SIG_BLOCK, ())) == {signal.SIGINT})
"""


def test_processes_are_deaf_to_ctrl_c_from_birth_and_the_command_is_not():
    done = subprocess.run([sys.executable, "-c", _BORN_DEAF], capture_output=True, text=True, timeout=100)
    assert done.stdout.split() == ["False", "True"], done.stderr
