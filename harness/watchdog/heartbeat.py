"""Heartbeats: one small file per rank, by which ranks see each other when the network between them fails."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

from harness.files import Unreadable
from harness.records.reading import Count, Schema, Text, read_record

FOLDER = "heartbeats"
ENDED = "ended"


class Heartbeat(Schema):
    """What a rank was doing when it last wrote; times are seconds of the wall clock, which hosts share well enough.

    `place` is a line of its source, `waits` whether it waited for other ranks there.
    """

    rank: Count
    world_size: Count
    host: Text
    pid: Count
    phase: Text
    step: Count
    detail: Text
    since: float
    time: float
    place: Text = ""
    waits: bool = False


def write_heartbeat(folder: Path, beat: Heartbeat) -> None:
    """Replace the rank's file.

    Not flushed to the disk as other files are: a heartbeat is worth nothing after a crash, and comes every few seconds.

    Raises:
        OSError: when it cannot be written.
    """
    path = _path(folder, beat.rank)
    path.parent.mkdir(exist_ok=True)  # without parents: a run folder that was deleted stays so
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(beat.model_dump()) + "\n", encoding="utf-8")
    temporary.replace(path)


def read_heartbeat(folder: Path, rank: int, world_size: int) -> Heartbeat | None:
    """The rank's last heartbeat; None where there is none of a run with as many processes."""
    try:
        beat = read_record(_path(folder, rank), Heartbeat)
    except Unreadable:
        return None
    return beat if beat.world_size == world_size else None


Peers = list[tuple[int, Heartbeat | None]]


class HeartbeatThread:
    """Thread that writes this rank's heartbeats and reads the others'.

    The run folder's file system may be the very thing that stalls: then this thread hangs, and the watchdog does not.

    Args:
        folder: the run folder.
        make: this rank's heartbeat as of now.
        wants_peers: whether to read the others' now.
        interval: seconds between two beats.
        failed: takes the error of a heartbeat that could not be written; no more are tried.
    """

    def __init__(
        self,
        folder: Path,
        make: Callable[[], Heartbeat],
        wants_peers: Callable[[], bool],
        interval: float,
        failed: Callable[[OSError], None],
    ) -> None:
        self.folder, self._make, self._wants_peers, self._failed = folder, make, wants_peers, failed
        self._interval, self._stop = interval, threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeats", daemon=True)
        self._works = True
        self.last_written: float | None = None
        self.peers: Peers = []

    def start(self) -> None:
        """Beat now and every `interval` seconds from now on."""
        self.beat()
        self._thread.start()

    def stop(self) -> None:
        """End the thread and beat once more, unless the file system hangs."""
        self._stop.set()
        self._thread.join(timeout=2 * self._interval)
        if not self._thread.is_alive():
            self.beat()

    def beat(self) -> None:
        """Write once, and read the others if they are wanted."""
        if not self._works:
            return
        own = self._make()
        try:
            write_heartbeat(self.folder, own)
        except OSError as error:
            self._works, self.peers = False, []
            self._failed(error)
            return
        self.last_written = own.time
        if self._wants_peers():
            others = [rank for rank in range(own.world_size) if rank != own.rank]
            self.peers = [(rank, read_heartbeat(self.folder, rank, own.world_size)) for rank in others]

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            self.beat()


def _path(folder: Path, rank: int) -> Path:
    return folder / FOLDER / f"rank-{rank:04d}.json"
