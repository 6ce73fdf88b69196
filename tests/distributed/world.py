"""Starts real processes that talk through gloo, has them do all jobs in one go, and hands their results back.

Starting processes takes seconds, a job milliseconds: each size of world is started once for all tests.
"""

from __future__ import annotations

import gc
import os
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from tests.fork_server import fork_server

# What would hang is an error after this time.
_TIMEOUT = timedelta(seconds=60)

Jobs = dict[str, Callable[[int, int], Any]]
Results = dict[str, list[Any]]


def start(size: int, slow: bool, folder: Path) -> Results:
    """The results of all jobs for `size` processes, by name, each a list in the order of the ranks."""
    fork_server()
    mp.start_processes(_work, (size, slow, str(folder)), nprocs=size, start_method="forkserver")
    by_rank = [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(size)]
    return {name: [results[name] for results in by_rank] for name in by_rank[0]}


def _work(rank: int, size: int, slow: bool, folder: str) -> None:
    from tests.distributed.jobs import jobs  # here, as this module is imported by the tests too
    from tests.plugins import collector  # noqa: F401 - a guard may then look past what is frozen

    gc.freeze()  # and does not look through all that the imports made
    gc.enable()
    torch.set_num_threads(1)
    if Path("/sys/class/net/lo").exists():  # the name of this machine may lead nowhere
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    meeting = f"file://{folder}/meeting"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=size, timeout=_TIMEOUT)
    results = {}
    for name, job in jobs(size, slow).items():
        try:
            results[name] = job(rank, size)
        except Exception:
            # The other processes may be waiting for this one: nothing after this job can be trusted.
            raise RuntimeError(f"job {name!r} on rank {rank} of {size}: {traceback.format_exc()}") from None
    torch.save(results, f"{folder}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
