"""Whether two processes of this machine can exchange tensors: gloo, and NCCL where there are GPUs."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from harness.doctor.finding import Finding, describe_error

INTERFACE = "GLOO_SOCKET_IFNAME"
_SECONDS = 12.0
_NCCL_SECONDS = 60.0


def check_processes(_folder: Path) -> Iterator[Finding]:
    """gloo, then NCCL."""
    import torch

    yield check_gloo()
    gpus = torch.cuda.device_count() if torch.version.cuda else 0  # it asks the driver, and forks stay usable
    if gpus == 0:
        yield Finding("nccl", "skipped", "there is no CUDA device")
        return
    world = min(2, gpus)
    problem = exchange("nccl", world, seconds=_NCCL_SECONDS)
    if problem:
        yield Finding("nccl", "fault", problem, "run it again with NCCL_DEBUG=INFO NCCL_P2P_DISABLE=1")
    else:
        yield Finding("nccl", "ok", f"all_gather over {world} GPU{'s' if world > 1 else ', the only one'}")


def check_gloo() -> Finding:
    """Two processes over gloo; when that fails, again over the loopback interface, to know whether it helps."""
    given = os.environ.get(INTERFACE)
    problem = exchange("gloo", 2)
    if problem is None:
        return Finding("gloo", "ok", "all_gather over 2 processes" + (f" ({INTERFACE}={given})" if given else ""))
    names = [name for _, name in socket.if_nameindex()]
    if given and set(given.split(",")) - set(names):
        fix = f"set {INTERFACE} to one of {', '.join(names)}, or unset it"
        return Finding("gloo", "fault", f"{INTERFACE}={given} is not an interface of this machine ({problem})", fix)
    loopback = next((name for name in names if name.startswith("lo")), None)
    if loopback and given != loopback and exchange("gloo", 2, loopback) is None:
        fix = (
            f"export {INTERFACE}={loopback} on one machine; on several, the interface between them: {', '.join(names)}"
        )
        return Finding("gloo", "fault", f"{problem}; over {loopback} it works", fix)
    fix = f"set {INTERFACE} to an interface of this machine: {', '.join(names)}; look for a firewall"
    return Finding("gloo", "fault", problem, fix)


def exchange(backend: str, world: int, interface: str | None = None, seconds: float = _SECONDS) -> str | None:
    """Gather a tensor over ``world`` new processes; returns what went wrong, None for nothing."""
    # A fork has imported torch already; on macOS a forked process may not compute.
    context: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    with tempfile.TemporaryDirectory(prefix="clipkd-doctor-") as scratch:
        ends: list[Connection] = []
        processes: list[Any] = []
        for rank in range(world):
            ours, theirs = context.Pipe(duplex=False)
            arguments = (theirs, backend, rank, world, f"{scratch}/store", interface, seconds)
            process = context.Process(target=_join, args=arguments, daemon=True)
            process.start()
            theirs.close()
            ends.append(ours)
            processes.append(process)
        try:
            return _first_problem(ends, time.monotonic() + seconds + 2)
        finally:
            for process in processes:
                process.kill()
                process.join(2)


def _first_problem(ends: list[Connection], deadline: float) -> str | None:
    waiting = list(ends)
    while waiting:
        ready = wait(waiting, max(0.0, deadline - time.monotonic()))
        if not ready:
            return f"{len(waiting)} of {len(ends)} processes did not answer in time"
        for end in ready:
            assert isinstance(end, Connection)
            waiting.remove(end)
            try:
                problem = end.recv()
            except EOFError:
                return "a process died"
            if problem:
                return str(problem)
    return None


def _join(end: Connection, backend: str, rank: int, world: int, store: str, interface: str | None, s: float) -> None:
    """One process: join the group, gather, compare."""
    if interface:
        os.environ[INTERFACE] = interface
    try:
        end.send(_gather(backend, rank, world, store, timedelta(seconds=s)))
    except Exception as error:
        end.send(describe_error(error))


def _gather(backend: str, rank: int, world: int, store: str, timeout: timedelta) -> str | None:
    import torch
    import torch.distributed as dist

    device = torch.device("cuda", rank) if backend == "nccl" else torch.device("cpu")
    if backend == "nccl":
        torch.cuda.set_device(device)
    dist.init_process_group(backend, store=dist.FileStore(store, world), rank=rank, world_size=world, timeout=timeout)
    rows = [torch.zeros(4, device=device) for _ in range(world)]
    dist.all_gather(rows, torch.full((4,), rank + 1.0, device=device))
    got, wanted = [row.tolist() for row in rows], [[number + 1.0] * 4 for number in range(world)]
    return None if got == wanted else f"all_gather gave {got} instead of {wanted}"
