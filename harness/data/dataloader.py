"""Worker processes, through torchdata's DataLoader, whose state counts what was handed out and not what was prefetched.

Its state matters for shards only. It needs torch's private parts: 0.11 was tried with torch 2.6 and 2.15.
"""

import os
import signal
import time
import warnings
from collections.abc import Iterator
from types import FrameType
from typing import Any

import torch
from torch.utils.data import Dataset, Sampler
from torchdata.stateful_dataloader import StatefulDataLoader

from harness.data.chunks import Chunk
from harness.data.seeds import derive
from harness.errors import UserError

# Seconds within which several SIGTERMs are one wish to stop, and those that a worker then has left; torchrun gives 30.
_ONE_STOP = 5.0
_LAST_WORK = 60


class Chunks(Iterator[Chunk]):
    """Chunks of a dataset for ever, in order.

    Args:
        dataset: makes a chunk of each request, or makes chunks by itself.
        requests: what to ask for; None for a dataset that makes them by itself.
        seed: of the workers' own generators, which nothing here uses.
        workers: the number of worker processes; 0 works in this one.
        pin_memory: whether batches are put into page-locked memory.
        state: what `state_dict` gave in the run that goes on.
    """

    def __init__(
        self,
        dataset: Dataset[Chunk],
        requests: Sampler[Any] | None,
        *,
        seed: int,
        workers: int,
        pin_memory: bool,
        state: dict[str, Any] | None = None,
    ) -> None:
        with warnings.catch_warnings():
            # torchdata 0.11 calls what torch 2.15 has no more use for.
            warnings.filterwarnings("ignore", message="'set_vital' is deprecated")
            self._loader: StatefulDataLoader[Chunk] | None = StatefulDataLoader(
                dataset,
                batch_size=None,
                sampler=requests,
                num_workers=workers,
                pin_memory=pin_memory,
                worker_init_fn=_outlive_a_stop,
                # Without a generator of its own it would draw from torch's global one.
                generator=torch.Generator().manual_seed(derive(seed, "workers")),
            )
        if state is not None:
            self._loader.load_state_dict(state)
        self._workers = workers
        self._chunks: Iterator[Chunk] | None = iter(self._loader)

    def __next__(self) -> Chunk:
        assert self._chunks is not None, "closed"
        try:
            return next(self._chunks)
        except (RuntimeError, OSError, EOFError) as error:
            lost = lost_worker(error) if self._workers else None
            if lost is None:
                raise
            raise lost from error

    def state_dict(self) -> dict[str, Any]:
        """Return the state after the last chunk handed out."""
        assert self._loader is not None, "closed"
        return self._loader.state_dict()

    def close(self) -> None:
        """Stop the workers."""
        self._chunks = self._loader = None


def _outlive_a_stop(_worker: int) -> None:
    """Go on after a SIGTERM and those that come with it, and after every SIGINT.

    A scheduler or a terminal sends them to all processes of a run, and torchrun hands its own on to them once more; the
    training process, which then saves, needs its data until it stops its workers itself, by another SIGTERM if they
    take their time.
    """
    first = None

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal first
        now = time.monotonic()
        if first is None:
            first = now
        elif now - first < _ONE_STOP:
            signal.alarm(_LAST_WORK)  # whatever it was: nobody has to wait for this process for ever
        else:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, note)


def lost_worker(error: Exception) -> UserError | None:
    """Return what a user is told of a worker that died; None for an error of another kind.

    On Linux torch raises this error wherever the main thread happens to be when the worker's end is signalled, so who
    runs the training loop has to ask as well.
    """
    text = str(error) or type(error).__name__
    # One that dies while it hands a batch over breaks the connection; an error raised in a worker says "Caught".
    is_cut_off = isinstance(error, ConnectionError | EOFError | FileNotFoundError) or "DataLoader worker" in text
    if not is_cut_off or text.startswith("Caught"):
        return None
    if "shared memory" in text or "Bus error" in text:
        return UserError(
            "a data worker ran out of shared memory (/dev/shm); enlarge it (docker run --shm-size=16g, for one), or "
            "lower data.workers or train.batch_size."
        )
    return UserError(
        f"a data worker ended by itself or was killed ({text.splitlines()[0].rstrip('.')}), most often because the "
        "machine ran out of memory; lower data.workers, or look into the system's log (dmesg)."
    )
