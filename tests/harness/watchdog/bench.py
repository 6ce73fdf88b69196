"""A watchdog on a clock that the test moves."""

from __future__ import annotations

from pathlib import Path

from harness.watchdog import Watchdog

# Long enough for any machine: what is awaited comes in well under a second where nothing is wrong.
DEADLINE = 60


class Bench:
    """A watchdog whose threads are not started; its clock is the test's."""

    def __init__(
        self, folder: Path | None = None, rank: int = 3, world_size: int = 1, limit: float | None = 300, **more
    ):
        self.now, self.said, self.left = 1000.0, [], []
        clock = {"clock": lambda: self.now, "wall": lambda: self.now + 1e9}
        self.watchdog = Watchdog(
            folder, rank, world_size, limit, warn=self.said.append, leave=self.left.append, **clock, **more
        )
        self.watchdog.phase("data", 1)  # the first step has another limit

    def after(self, seconds: float, every: float = 5.0) -> list[str]:
        """What is said while so much time passes."""
        known = len(self.said)
        for _ in range(round(seconds / every)):
            self.now += every
            if self.watchdog.heartbeats:
                self.watchdog.heartbeats.beat()
            self.watchdog.check()
        return self.said[known:]
