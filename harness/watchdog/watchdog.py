"""Watchdog: a thread that looks every few seconds how long the training loop has been in its current phase."""

from __future__ import annotations

import faulthandler
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from harness.watchdog.heartbeat import ENDED, Heartbeat, HeartbeatThread
from harness.watchdog.messages import (
    about_data,
    about_folder,
    about_peers,
    about_self,
    describe_phase,
    describe_position,
    format_duration,
)
from harness.watchdog.source_line import source_line_of
from harness.watchdog.worker_processes import child_processes, open_files

logger = logging.getLogger(__name__)

# The exit code of a process that ended itself because it stalled: EX_IOERR of sysexits.h.
EXIT_STALLED = 74
# These last longer than a step by their nature, so their limits are longer by this factor.
PATIENCE = {"start": 10.0, "checkpoint": 10.0, "evaluation": 10.0}
# So do these of the first step: torch.compile and the GPU's libraries look for the best kernels then.
FIRST_PATIENCE = {"step": 10.0, "exchange": 10.0}
BEAT_SECONDS = 5.0
# A rank that has missed as many heartbeats is silent.
SILENT_BEATS = 4


class LoopState(NamedTuple):
    """Phase and step of the loop, and since when by the monotonic clock."""

    phase: str
    step: int
    detail: str
    since: float


class Watchdog:
    """Warns which loader or rank stalls: once a stall, again each time it has doubled, once when it is over.

    While it is entered, a daemon thread looks every few seconds; the loop tells it with `phase` where it is. Of several
    processes each writes its heartbeat under ``folder/heartbeats`` and reads the others' when it stalls.

    Args:
        folder: the run folder, the same for all ranks; None for no heartbeats.
        rank: of this process.
        world_size: how many processes there are.
        limit_seconds: how long a phase may last before a warning; None for no warnings.
        abort_after: how long a phase may last before the process writes the stacks of all threads to stderr and ends
            with exit code `EXIT_STALLED`; None for never.
        clock: seconds, monotonic.
        wall: seconds of the wall clock.
        leave: ends the process with an exit code.
        warn: takes one sentence, called from another thread; by default it is logged.
    """

    def __init__(
        self,
        folder: Path | None,
        rank: int,
        world_size: int,
        limit_seconds: float | None,
        *,
        abort_after: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        leave: Callable[[int], None] = os._exit,
        warn: Callable[[str], None] = logger.warning,
    ) -> None:
        self._host = socket.gethostname()
        self._rank, self._world_size = rank, world_size
        self._limit, self._abort_after = limit_seconds, abort_after
        self._clock, self._wall, self._leave, self._warn = clock, wall, leave, warn
        limits = [value for value in (limit_seconds, abort_after) if value is not None]
        self._shortest = min(limits, default=None)
        self._interval = min([BEAT_SECONDS, *(value / 4 for value in limits)])
        self._state = LoopState("start", 0, "", clock())
        self._first: int | None = None
        self._checked = self._awake = clock()
        self._stalled: LoopState | None = None
        self._loop = threading.get_ident()
        self._next = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self.heartbeats = self._make_heartbeats(folder) if folder is not None and world_size > 1 else None

    def __enter__(self) -> Watchdog:
        self._checked = self._awake = self._clock()
        self.phase("start", 0)
        if self.heartbeats is not None:
            self.heartbeats.start()
        if self._shortest is not None:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self._state = self._state._replace(phase=ENDED, detail=f"{kind.__name__}: {error}" if kind else "")
        if self.heartbeats is not None:
            self.heartbeats.stop()

    def phase(self, name: str, step: int, detail: str = "") -> None:
        """The loop is now here: "data", "step", "exchange", "checkpoint" or "evaluation" of a step.

        A rank that only waits while another evaluates or writes a checkpoint names that phase too, not "exchange".
        """
        if self._first is None and name != "start":
            self._first = step
        # One assignment, which the threads see whole or not at all: this is called several times a step.
        self._state = LoopState(name, step, detail, self._clock())

    def position(self) -> str:
        """Where the loop is, for messages: "in step 3"."""
        return describe_position(self._state.phase, self._state.step)

    def check(self) -> None:
        """Check once, as the thread does every few seconds."""
        now, state = self._clock(), self._state
        gap, self._checked = now - self._checked, now
        if self._stalled is not None and state is not self._stalled:
            self._warn_over(self._stalled, state)
        if self._shortest is not None and gap >= self._shortest:
            # Not a stall of what it was doing: count from here.
            self._awake = now
            self._warn_stood_still(gap)
        waited, patience = now - max(state.since, self._awake), self._patience(state)
        if self._abort_after is not None and waited >= self._abort_after * patience:
            self._abort(state, waited)
        elif self._limit is not None and waited >= self._limit * patience:
            self._warn_stalled(state, waited)

    def _watch(self) -> None:
        while not self._stop.wait(self._interval):
            self.check()

    def _patience(self, state: LoopState) -> float:
        first = FIRST_PATIENCE if state.step == self._first else {}
        return {**PATIENCE, **first}.get(state.phase, 1.0)

    def _warn_stalled(self, state: LoopState, waited: float) -> None:
        if self._stalled is state and waited < self._next:
            return
        self._stalled, self._next = state, 2 * waited
        self._warn(f"{self._sentence(state, waited)}; {self._reason(state)}")

    def _warn_over(self, stalled: LoopState, state: LoopState) -> None:
        self._stalled = None
        took = format_duration(state.since - stalled.since)
        self._warn(f"{self._who} continues at step {state.step} after {took} in phase {stalled.phase}")

    def _warn_stood_still(self, gap: float) -> None:
        self._warn(
            f"{self._who} stood still as a whole for {format_duration(gap)} at step {self._state.step}: it was "
            "stopped, suspended, without processor time, or in code that holds Python's lock"
        )

    def _sentence(self, state: LoopState, waited: float) -> str:
        return f"{self._who} {describe_phase(state.phase, state.step, state.detail, waited)}"

    def _reason(self, state: LoopState) -> str:
        own = os.getpid()
        if state.phase == "data":
            return about_data(child_processes(own), open_files(own))
        if self.heartbeats is None:
            return about_self(own, self._host)
        beat, silent = self._heartbeat(), SILENT_BEATS * self._interval
        if self.heartbeats.last_written is not None and beat.time - self.heartbeats.last_written > silent:
            return about_folder(self.heartbeats.folder, beat.time - self.heartbeats.last_written)
        return about_peers(self.heartbeats.peers, beat, silent) or about_self(own, self._host)

    def _abort(self, state: LoopState, waited: float) -> None:
        self._warn(f"{self._sentence(state, waited)}: it ends itself with exit code {EXIT_STALLED}; stacks follow")
        sys.stdout.flush()
        faulthandler.dump_traceback(all_threads=True)
        self._leave(EXIT_STALLED)

    def _make_heartbeats(self, folder: Path) -> HeartbeatThread:
        return HeartbeatThread(folder, self._heartbeat, self._wants_peers, self._interval, self._warn_failed)

    def _heartbeat(self) -> Heartbeat:
        state, wall = self._state, self._wall()
        place = source_line_of(self._loop)
        return Heartbeat(
            rank=self._rank,
            world_size=self._world_size,
            host=self._host,
            pid=os.getpid(),
            phase=state.phase,
            step=state.step,
            detail=state.detail,
            since=wall - (self._clock() - state.since),
            time=wall,
            place=place.text,
            waits=place.waits,
        )

    def _wants_peers(self) -> bool:
        # Before the limit, so that the watching thread finds the others' heartbeats read already.
        return self._shortest is not None and self._clock() - self._state.since >= self._shortest / 2

    def _warn_failed(self, error: OSError) -> None:
        self._warn(
            f"{self._who} cannot write its heartbeat ({error}); the run continues, but ranks that stall cannot be named"
        )

    @property
    def _who(self) -> str:
        return f"rank {self._rank} on host {self._host}" if self._world_size > 1 else f"the run on host {self._host}"
