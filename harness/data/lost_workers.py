"""Data workers that have died: what their end shows where it is known, and nothing that is guessed."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any

from harness.errors import UserError
from harness.interrupts import signal_name

# Torch's own: the process ids that it has seen die.
_DIED = re.compile(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\)")
# Seconds between a connection that breaks and the end of the process at its other side.
_END = 1.0


def workers_of(batches: object) -> Sequence[BaseProcess]:
    """The processes behind an iterator over a DataLoader; none where it has no workers."""
    found: Sequence[BaseProcess] = getattr(batches, "_workers", ())
    return found


@contextmanager
def naming_lost_workers(
    workers: Callable[[], Sequence[BaseProcess]], option: str, batch_size: str = "the batch size"
) -> Iterator[None]:
    """Raise `lost_worker`'s error in the place of what the block raises because of one."""
    try:
        yield
    except (RuntimeError, OSError, EOFError) as error:
        lost = lost_worker(error, workers(), option, batch_size)
        if lost is None:
            raise
        # The traceback would hold the loader, whose workers would live as long as the error is kept.
        raise lost from error.with_traceback(None)


def lost_worker(error: Exception, workers: Sequence[BaseProcess], option: str, batch_size: str) -> UserError | None:
    """The error for a user where the reason is that one of these workers has died; None for another reason.

    Args:
        error: what was raised; torch does so wherever the main thread happens to be.
        workers: the loader's processes.
        option: what sets their number.
        batch_size: what sets the size of what they hand over.
    """
    text = str(error) or type(error).__name__
    named = {int(number) for number in re.findall(r"\d+", match[1])} if (match := _DIED.search(text)) else set()
    # One that dies while it hands a batch over breaks the connection; an error raised in a worker says "Caught".
    if not (named or isinstance(error, ConnectionError | EOFError | FileNotFoundError)) or text.startswith("Caught"):
        return None
    dead = _dead(workers, named)
    if dead is None:
        return None
    if "shared memory" in text or "Bus error" in text:
        return UserError(
            "a data worker ran out of shared memory (/dev/shm); enlarge it (docker run --shm-size=16g, for one), or "
            f"lower {option} or {batch_size}."
        )
    return UserError(f"data worker {dead.pid} {end_of(dead.exitcode)}; {_advice(dead.exitcode, option)}")


def _dead(workers: Sequence[BaseProcess], named: set[int]) -> Any:
    """A worker that has ended, of those that torch names; of the others after a moment in which it may still die."""
    mine = [worker for worker in workers if not named or worker.pid in named]
    if mine:
        wait([worker.sentinel for worker in mine], timeout=_END)
    # A worker that its loader has told to end does so with 0.
    return next((worker for worker in mine if worker.exitcode), None)


def end_of(code: int | None) -> str:
    """How a process has ended, by its exit code."""
    if code is not None and code < 0:
        return f"was killed by {signal_name(-code)}"
    return f"ended by itself with exit code {code}"


def _advice(code: int | None, option: str) -> str:
    if code == -signal.SIGKILL:
        return f"if the system did it for lack of memory, its log (dmesg) says so: lower {option} then"
    return f"the system's log (dmesg) may say why; {option} 0 loads in the main process and shows an error there"
