"""What a process may use, within the limits of its container: both versions of Linux's control groups are read."""

from __future__ import annotations

import os
from pathlib import Path

ROOT, OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
# Version 1 writes "no limit" as a number near 2**63.
_UNLIMITED = 2**60


def usable_cores() -> float:
    """Cores by affinity and by the container's limit."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(float(allowed), cpu_limit() or float("inf"))


def cpu_limit(root: Path = ROOT, own: Path = OWN) -> float | None:
    """How many CPUs' time the container gives, None without a limit."""
    found = []
    for folder in _folders(root, own, "cpu"):
        words = _words(folder / "cpu.max")
        if not words:
            words = [*_words(folder / "cpu.cfs_quota_us"), *_words(folder / "cpu.cfs_period_us")]
        if len(words) == 2 and words[0].isdigit() and int(words[1]) > 0:  # "max", and -1, are no limit
            found.append(int(words[0]) / int(words[1]))
    return min(found, default=None)


def memory_limit(root: Path = ROOT, own: Path = OWN) -> int | None:
    """Bytes of memory that the container gives, None without a limit."""
    return min((limit for limit, _ in _memory(root, own)), default=None)


def memory_left(root: Path = ROOT, own: Path = OWN) -> int | None:
    """Bytes of it that are not in use yet: their end is the process's end, whatever the machine still has."""
    return min((limit - used for limit, used in _memory(root, own)), default=None)


def _memory(root: Path, own: Path) -> list[tuple[int, int]]:
    """Limit and use of each group that has a limit."""
    found = []
    for folder in _folders(root, own, "memory"):
        limit = _words(folder / "memory.max") or _words(folder / "memory.limit_in_bytes")
        used = _words(folder / "memory.current") or _words(folder / "memory.usage_in_bytes") or ["0"]
        if limit and limit[0].isdigit() and int(limit[0]) < _UNLIMITED:
            found.append((int(limit[0]), int(used[0])))
    return found


def _folders(root: Path, own: Path, controller: str) -> list[Path]:
    """The group of this process and those around it, each of which may set a limit."""
    folders: list[Path] = []
    for line in own.read_text().splitlines() if own.is_file() else ():
        _, controllers, path = line.split(":", 2)
        if not controllers or controller in controllers.split(","):
            top = root / controllers if controllers else root
            inner = top / path.lstrip("/")
            folders += [part for part in (inner, *inner.parents) if part == top or top in part.parents]
    return folders


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []
