"""SIGTERM and SIGHUP ask a run to stop; a run that was started to ignore SIGHUP ignores it."""

from __future__ import annotations

import os
import signal

import pytest

from harness.errors import Terminated
from harness.train.signals import exit_on_sigterm, watch_for_sigterm

STOPS = [signal.SIGTERM, signal.SIGHUP]


@pytest.fixture(autouse=True)
def handled():
    """Whatever the tests were started with, a signal that nobody takes is seen and ends nothing."""
    before, came = {stop: signal.getsignal(stop) for stop in STOPS}, []
    for stop in STOPS:
        signal.signal(stop, lambda number, frame: came.append(number))
    yield came
    for stop, handler in before.items():
        signal.signal(stop, handler)


@pytest.mark.parametrize("stop", STOPS)
def test_either_signal_asks_to_stop_and_is_afterwards_what_it_was(handled, stop):
    with watch_for_sigterm() as asked:
        assert not asked()
        os.kill(os.getpid(), stop)
        assert asked() and handled == []
    os.kill(os.getpid(), stop)
    assert handled == [stop]


@pytest.mark.parametrize("first", STOPS)
def test_either_signal_ends_what_may_be_thrown_away_and_no_second_one_does(handled, first):
    with pytest.raises(Terminated, match="in a word"), exit_on_sigterm("in a word"):
        try:
            os.kill(os.getpid(), first)
        finally:
            for again in STOPS:
                os.kill(os.getpid(), again)
    assert handled == []
    os.kill(os.getpid(), first)
    assert handled == [first]


@pytest.mark.parametrize("context", [watch_for_sigterm, lambda: exit_on_sigterm("in a word")])
def test_a_sighup_that_is_ignored_at_the_start_stays_ignored(context):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    with context() as asked:
        os.kill(os.getpid(), signal.SIGHUP)
        assert asked is None or not asked()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
