"""Failures of a rank: whatever a loss, a model or a library raises becomes one sentence, and its traceback a file."""

from __future__ import annotations

import errno
import os
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.cli.guard import explain
from harness.errors import Terminated, UserError
from harness.files import vanished, write_text
from harness.out_of_memory import memory_shortage
from harness.train.distributed import DistributedContext
from harness.way_on import AGAIN, way_on

# Of a run's rank 0; others have their number in the name.
TRACEBACK = "error.txt"
LostWorker = Callable[[Exception], UserError | None]


@contextmanager
def told_in_a_sentence(
    out: Path, rank: DistributedContext, position: Callable[[], str], lost_worker: LostWorker = lambda error: None
) -> Iterator[None]:
    """Turn what the block raises into an error with one sentence, unless it is one.

    Args:
        out: the run folder, which gets the traceback.
        rank: this process.
        position: what it was doing, as in "in step 3".
        lost_worker: the error for a data worker that has died, None where none has.

    Raises:
        UserError: for every Exception but an ImportError, which the command has a sentence for.
    """
    try:
        yield
    except (UserError, Terminated, ImportError):
        raise
    except Exception as error:
        # Torch raises for a killed data worker wherever the main thread happens to be, and for another process that is
        # gone wherever this one next needs it.
        told = lost_worker(error) or rank.lost_peer(error) or _of_the_system(error, out)
        raise told or _described(error, out, rank, position()) from error


def remove_tracebacks(out: Path) -> None:
    """Remove what an earlier start of the run has left."""
    for file in out.glob("error*.txt"):
        file.unlink()


def _of_the_system(error: Exception, out: Path) -> UserError | None:
    """The sentence that any command has for an error of the system, with the way on that this one has."""
    if not isinstance(error, OSError) or memory_shortage(error) is not None:
        return None
    missing = Path(str(error.filename)) if error.errno == errno.ENOENT and error.filename else None
    if missing is not None and out.absolute() in missing.absolute().parents:
        return vanished(missing)
    sentence = explain(error)
    return None if sentence is None else UserError(sentence.replace(AGAIN.resume, way_on().resume))


def _described(error: Exception, out: Path, rank: DistributedContext, position: str) -> UserError:
    who = str(rank) if rank.world_size > 1 else "the training"
    file = _write_traceback(error, out, rank.rank)
    shortage = memory_shortage(error)
    if shortage is not None:
        return UserError(
            f"{who} ran out of memory {position}: {shortage} ({_line(error)}); {_lower(error, position)}; its "
            f"traceback is in {file}"
        )
    return UserError(
        f"{who} cannot go on {position}: {type(error).__name__}: {_message(error)} ({_line(error)}); its traceback is "
        f"in {file}; correct what it names and {way_on().resume}"
    )


def _lower(error: Exception, position: str) -> str:
    if "DataLoader worker" in str(error):
        return f"lower data.workers and {way_on().resume}"
    if "evaluat" in position:
        return f"lower eval.batch_size and {way_on().resume}"
    return (
        f"raise train.accum_freq, which computes the same batch in slices, and {way_on().resume}, or lower "
        f"train.batch_size or data.image_size and {way_on().restart}"
    )


def _message(error: Exception) -> str:
    """Its text in one line; of an error in a data worker, the last line of the traceback that torch makes of it."""
    text = str(error).strip()
    if text.startswith("Caught "):
        text = text.splitlines()[-1]
    return " ".join(text.split())[:300] or "no message"


def _line(error: Exception) -> str:
    """The line that raised it, the innermost that is not torch's."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    own = [frame for frame in frames if str(frame.f_globals.get("__name__")).split(".")[0] != "torch"]
    code, number = own[-1].f_code, dict(traceback.walk_tb(error.__traceback__))[own[-1]]
    return f"{Path(code.co_filename).name}:{number} in {code.co_name}"


def _write_traceback(error: Exception, out: Path, rank: int) -> Path:
    name = TRACEBACK if rank == 0 else f"error.rank{rank}.txt"
    text = "".join(traceback.format_exception(error))
    try:
        if not out.is_dir():
            raise FileNotFoundError(out)  # a folder that somebody has deleted stays so
        write_text(out / name, text)
        return out / name
    except OSError:
        file = Path(tempfile.gettempdir()) / f"clipkd-{os.getpid()}-{name}"
        write_text(file, text)
        return file
