"""Speed and room of the disk at a folder, from one small file that is removed again."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from harness.doctor.finding import Finding, describe_error

MB, GIB = 10**6, 2**30
_SIZE, _BLOCK = 64 * MB, 4 * MB
_SECONDS = 4.0  # a slow disk is judged by what it took until then
_SLOW = 20 * MB
# A few checkpoints of ViT-B/16 with their optimizer.
_ROOM = 5 * GIB


def check_disk(folder: Path) -> Iterator[Finding]:
    """Free space, then speed."""
    try:
        free = shutil.disk_usage(folder).free
        # It has no name, so nothing of it stays behind whatever happens.
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            written, write = _write(file)
            read = _read(file, written)
    except OSError as error:
        yield Finding(
            "disk", "fault", f"cannot write there: {describe_error(error)}", "choose another --folder and --out"
        )
        return
    yield check_room(free)
    yield describe_speed(written, write, read)


def check_room(free: int) -> Finding:
    """Free space for checkpoints."""
    says = f"{free / GIB:.1f} GiB free"
    if free < _ROOM:
        return Finding("disk space", "warning", f"{says}: little for checkpoints", "free some, or choose another --out")
    return Finding("disk space", "ok", says)


def describe_speed(written: int, write: float, read: float | None) -> Finding:
    """The row of both speeds, in bytes a second."""
    reads = f"read {read / MB:,.0f} MB/s past the cache" if read is not None else "reading not measured here"
    says = f"write {write / MB:,.0f} MB/s with fsync, {reads}"
    caveat = f"one file of {written / MB:.0f} MB; small files and network disks differ, other caches may have helped"
    if min(write, read or write) < _SLOW:
        fix = "keep the data on a faster disk, as shards rather than single images, and write runs (--out) there"
        return Finding("disk", "warning", f"{says}: slow ({caveat})", fix)
    return Finding("disk", "ok", f"{says} ({caveat})")


def _write(file: IO[bytes]) -> tuple[int, float]:
    """How much was written, and bytes a second until the disk had it."""
    block, written = os.urandom(_BLOCK), 0  # random, as some file systems compress
    start = time.perf_counter()
    while written < _SIZE and time.perf_counter() - start < _SECONDS:
        written += file.write(block)
        os.fsync(file.fileno())
    return written, written / (time.perf_counter() - start)


def _read(file: IO[bytes], size: int) -> float | None:
    """Bytes a second after the system was asked to forget the file; None where it cannot be asked."""
    if not hasattr(os, "posix_fadvise"):
        return None
    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    file.seek(0)
    start, done = time.perf_counter(), 0
    while done < size and time.perf_counter() - start < _SECONDS:
        done += len(file.read(_BLOCK)) or size
    return min(done, size) / (time.perf_counter() - start)
