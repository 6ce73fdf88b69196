"""Data worker processes as Linux sees them: alive or not, and what they read. Elsewhere nothing is known."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
DEAD, STOPPED, DISK = "dead", "stopped", "waiting for a disk or network file system"
# The letters of /proc/PID/stat; what is not here is plainly alive.
_STATES = {"Z": DEAD, "X": DEAD, "T": STOPPED, "t": STOPPED, "D": DISK}
# Python's and torch's own helpers load no data.
_HELPERS = (b"multiprocessing.resource_tracker", b"multiprocessing.forkserver", b"compile_worker")
_NO_DATA = ("/dev/", "/proc/", "/sys/")


@dataclass(frozen=True)
class WorkerProcess:
    """A process: its state in words, and the files that it has open for reading."""

    pid: int
    state: str
    reads: tuple[str, ...]


def child_processes(pid: int) -> list[WorkerProcess]:
    """The child processes of a process, oldest first."""
    found, inherited = [], set(open_files(pid))
    for folder in PROC.iterdir() if PROC.is_dir() else ():
        parent = _parent(folder) if folder.name.isdigit() else None
        if parent == pid and not any(helper in _bytes(folder / "cmdline") for helper in _HELPERS):
            found.append(inspect_process(int(folder.name), inherited))
    return sorted(found, key=lambda process: process.pid)


def inspect_process(pid: int, inherited: Collection[str] = ()) -> WorkerProcess:
    """One process as it is now; of files that a fork may have inherited only where it has none of its own."""
    fields = _stat(PROC / str(pid))
    files = open_files(pid)
    reads = [name for name in files if name not in inherited] or files
    return WorkerProcess(pid, _STATES.get(fields[0], "alive") if fields else DEAD, tuple(reads))


def open_files(pid: int) -> list[str]:
    """The files that a process has open for reading only, the latest opened last; standard streams aside."""
    folder = PROC / str(pid) / "fd"
    try:
        numbers = sorted(int(entry.name) for entry in folder.iterdir())
    except OSError:
        return []
    names = [_read_only(folder, number) for number in numbers if number > 2]
    return list(dict.fromkeys(name for name in names if name))


def _read_only(folder: Path, number: int) -> str | None:
    # Nothing here touches the file itself: the file system that it is on may be what does not answer.
    flags = _bytes(folder.parent / "fdinfo" / str(number)).partition(b"flags:")[2].split()
    if not flags or int(flags[0], 8) & (os.O_ACCMODE | os.O_DIRECTORY) != os.O_RDONLY:
        return None
    try:
        target = os.readlink(folder / str(number))
    except OSError:
        return None  # closed meanwhile
    return target if target.startswith("/") and not target.startswith(_NO_DATA) else None


def _parent(folder: Path) -> int | None:
    fields = _stat(folder)
    return int(fields[1]) if fields else None


def _stat(folder: Path) -> list[str]:
    # The name, in parentheses, may hold blanks and parentheses itself.
    return _bytes(folder / "stat").decode(errors="replace").rpartition(")")[2].split()


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""  # the process has ended meanwhile, or is not ours
