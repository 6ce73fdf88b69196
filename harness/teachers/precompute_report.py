"""Result of `clipkd teacher precompute`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class PrecomputeReport:
    """Counts over all teachers.

    Attributes:
        views: of each sample.
        folders: of the caches.
        written: files made by this command.
        kept: files that were there and fit.
        samples: embedded by this command, once for each teacher.
        bytes: written.
        seconds: spent on it, without loading models.
        skipped: samples that could not be used, by kind.
        skipped_lists: the files that list them.
    """

    views: int
    folders: list[Path] = field(default_factory=list)
    written: int = 0
    kept: int = 0
    samples: int = 0
    bytes: int = 0
    seconds: float = 0.0
    skipped: Counter[str] = field(default_factory=Counter)
    skipped_lists: list[Path] = field(default_factory=list)

    def lines(self) -> list[str]:
        """For people."""
        made = f"{self.samples:,} samples x {self.views} views, {self.bytes / 2**20:,.1f} MiB in {self.written:,} files"
        images = self.samples * self.views / max(self.seconds, 1e-9)
        speed = f", {self.seconds:.1f} s, {images:,.0f} images/s" if self.written else ""
        kept = f"; {self.kept:,} files were there" if self.kept else ""
        bad = ", ".join(f"{count} {kind}" for kind, count in self.skipped.most_common())
        skipped = [f"skipped {bad}, listed in {_listed(self.skipped_lists)}"] if bad else []
        return [f"{made}{speed}{kept}", *skipped, f"{_listed(self.folders)}: train from it with teacher_cache.use=true"]


def _listed(paths: list[Path]) -> str:
    return ", ".join(map(str, paths[:3])) + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")
