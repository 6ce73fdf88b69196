"""Limits of the system that data workers meet: shared memory and open files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

from harness.doctor.finding import Finding, Level

MIB = 2**20
# 64 MiB is what docker gives. A batch of 256 images of 224 pixels takes 37 MiB, and each worker prepares two ahead.
_SHM_USELESS, _SHM_LITTLE = 16 * MIB, 1024 * MIB
_FILES_USELESS, _FILES_FEW = 128, 1024


def check_limits(_folder: Path) -> Iterator[Finding]:
    """Shared memory, then open files."""
    yield check_shared_memory()
    yield check_open_files()


def check_shared_memory(folder: Path = Path("/dev/shm")) -> Finding:
    """Size of shared memory, through which data workers hand batches over."""
    if not folder.is_dir():
        return Finding("/dev/shm", "skipped", "this system has none")
    found = os.statvfs(folder)
    size, free = found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize
    says = f"{_size(size)}, {_size(free)} free"
    fix = "enlarge it (docker run --shm-size=16g, for one), or train with data.workers=0"
    if not os.access(folder, os.W_OK):
        return Finding("/dev/shm", "fault", f"{says}, not writable: data workers cannot hand batches over", fix)
    if free < _SHM_USELESS:
        return Finding("/dev/shm", "fault", f"{says}: data workers will die of it", fix)
    if free < _SHM_LITTLE:
        return Finding("/dev/shm", "warning", f"{says}: little for data workers", fix)
    return Finding("/dev/shm", "ok", says)


def check_open_files() -> Finding:
    """The limit of open files; workers hold some for each batch that they prepare, and one for each open shard."""
    if resource is None:
        return Finding("open files", "skipped", "this system has no such limit")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    says = f"limit {_count(soft)}, can be raised to {_count(hard)}"
    if soft == resource.RLIM_INFINITY or soft >= _FILES_FEW:
        return Finding("open files", "ok", says)
    level: Level = "fault" if soft < _FILES_USELESS else "warning"
    return Finding("open files", level, f"{says}: too few for many workers", "ulimit -n 65536, before clipkd")


def _count(limit: int) -> str:
    return "unlimited" if resource and limit == resource.RLIM_INFINITY else f"{limit:,}"


def _size(value: int) -> str:
    return f"{value / MIB:,.0f} MiB" if value < 2**30 else f"{value / 2**30:,.1f} GiB"
