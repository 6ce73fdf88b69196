"""Worker processes, through torchdata's DataLoader, whose state counts what was handed out and not what was prefetched.

Its state matters for shards only. It needs torch's private parts: 0.11 was tried with torch 2.6 and 2.15.
"""

import atexit
import os
import warnings
from collections.abc import Iterator
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any
from weakref import finalize

import torch
from torch.utils.data import Dataset, Sampler
from torchdata.stateful_dataloader import StatefulDataLoader

from harness.data.chunks import Chunk
from harness.data.lost_workers import lost_worker, workers_of
from harness.data.seeds import derive
from harness.data.worker_exit import start_worker, survive_first_sigterm
from harness.errors import UserError
from harness.interrupts import deaf_to_ctrl_c
from harness.way_on import way_on


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
        closed, closing = Pipe(duplex=False)
        with warnings.catch_warnings():
            # torchdata 0.11 calls what torch 2.15 has no more use for.
            warnings.filterwarnings("ignore", message="'set_vital' is deprecated")
            self._loader: StatefulDataLoader[Chunk] | None = StatefulDataLoader(
                dataset,
                batch_size=None,
                sampler=requests,
                num_workers=workers,
                pin_memory=pin_memory,
                worker_init_fn=partial(_init_worker, closed),
                # Without a generator of its own it would draw from torch's global one.
                generator=torch.Generator().manual_seed(derive(seed, "workers")),
            )
        with deaf_to_ctrl_c():
            self._chunks: Iterator[Chunk] | None = _begun(self._loader, state)
        self._tell_workers = finalize(self, _tell_workers, closing, os.getpid())
        # Before torch's own, which were registered just now and wait for each worker in turn.
        atexit.register(self._tell_workers)

    def __next__(self) -> Chunk:
        assert self._chunks is not None, "closed"
        try:
            return next(self._chunks)
        except (RuntimeError, OSError, EOFError) as error:
            lost = self.lost_worker(error)
            if lost is None:
                raise
            raise lost from error

    def lost_worker(self, error: Exception) -> UserError | None:
        """The error for a worker that has died, None where another is the reason."""
        return lost_worker(error, workers_of(self._chunks), "data.workers", "train.batch_size")

    def state_dict(self) -> dict[str, Any]:
        """Return the state after the last chunk handed out."""
        assert self._loader is not None, "closed"
        return self._loader.state_dict()

    def close(self) -> None:
        """Stop the workers."""
        self._tell_workers()
        atexit.unregister(self._tell_workers)
        self._chunks = self._loader = None


def _begun(loader: StatefulDataLoader[Chunk], state: dict[str, Any] | None) -> Iterator[Chunk]:
    """Start the workers.

    Raises:
        UserError: the state is not what such a loader gave.
    """
    if state is None:
        return iter(loader)
    try:
        loader.load_state_dict(state)
        return iter(loader)
    except (LookupError, TypeError, ValueError, AttributeError, AssertionError) as error:
        raise UserError(
            f"the checkpoint's place in the data cannot be used ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:100]}); resume from another checkpoint, or {way_on().restart}"
        ) from error


def _init_worker(closed: Connection, _worker: int) -> None:
    survive_first_sigterm()
    start_worker(closed)


def _tell_workers(closing: Connection, trainer: int) -> None:
    """Tell the workers that the loader is closed; a process that was forked since has a copy of it and says nothing."""
    if os.getpid() == trainer:
        closing.send_bytes(b"closed")
