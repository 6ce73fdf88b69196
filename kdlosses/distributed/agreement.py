"""Before any data moves, all processes make sure that they ask the same: what differs is an error on all, no hang."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import TypeVar

import torch
import torch.distributed as dist

from kdlosses.distributed.collectives import all_gather
from kdlosses.distributed.shard import Shard

_T = TypeVar("_T")
_SHOWN = 8  # ranks that a message lists
_CURE = (
    "every process must call the same loss with as many rows, the same widths and the same dtypes; leave out an uneven "
    "last batch (drop_last=True), or pass group=None to keep a loss within its process"
)


def agree(
    shard: Shard, read: Callable[[], _T], describe: Callable[[_T], Mapping[str, str]], flag: bool
) -> tuple[_T, bool]:
    """What ``read`` returns, once every process's has succeeded and all of them are alike.

    Args:
        shard: this process's place.
        read: validates this process's inputs; may raise.
        describe: everything that must be equal on all processes, by name.
        flag: of this process.

    Returns:
        What ``read`` returned, and whether any process raised its flag.

    Raises:
        ValueError: on every process, when one has failed or differs; names it and what differs.
    """
    told: Mapping[str, str] = {}
    failure: Exception | None = None
    try:
        value = read()
        told = describe(value)
    except Exception as caught:  # whatever it is: the other processes are waiting for this one
        failure = caught
    # Three numbers where all is well; texts travel only once something is wrong.
    heads = exchange(shard, [int(failure is None), int(flag), _fingerprint(told)])
    if all(head[0] for head in heads) and len({head[2] for head in heads}) == 1:
        return value, any(head[1] for head in heads)
    reports: list[tuple[str | None, Mapping[str, str]]] = [(None, {})] * shard.size
    dist.all_gather_object(reports, (None if failure is None else str(failure), told), group=shard.group)
    raise ValueError(_complaint(reports)) from failure


def exchange(shard: Shard, numbers: Sequence[int]) -> list[list[int]]:
    """Every process's ``numbers``, in the order of their ranks."""
    device = shard.device()
    # Off the compute stream, so that reading them waits for the other processes and not for the model's kernels.
    aside = nullcontext() if device.type != "cuda" else torch.cuda.stream(torch.cuda.Stream(device))
    with aside:
        mine = torch.tensor(numbers, dtype=torch.int64, device=device)
        everyone = mine.new_empty(shard.size * len(numbers))
        all_gather(everyone, mine, shard)
        return everyone.view(shard.size, -1).tolist()


def ranks(numbers: Sequence[int]) -> str:
    """``"rank 3"``, ``"ranks 0, 1, 2"``; not all of very many."""
    listed = ", ".join(map(str, numbers[:_SHOWN])) + (", ..." if len(numbers) > _SHOWN else "")
    return f"rank{'s' if len(numbers) > 1 else ''} {listed}"


def _fingerprint(told: Mapping[str, str]) -> int:
    # Seven bytes fit a signed 64-bit integer. Not hash(): that of a string differs between processes.
    return int.from_bytes(hashlib.blake2b(repr(dict(told)).encode(), digest_size=7).digest(), "big")


def _complaint(reports: Sequence[tuple[str | None, Mapping[str, str]]]) -> str:
    failed: dict[str, list[int]] = {}
    for rank, (failure, _) in enumerate(reports):
        if failure is not None:
            failed.setdefault(failure, []).append(rank)
    if failed:
        told = "; ".join(f"{ranks(where)} of {len(reports)}: {failure}" for failure, where in failed.items())
        return f"no process computed the loss: {told}"
    names = list(dict.fromkeys(name for _, told in reports for name in told))
    by_name = {name: _by_value([told.get(name, "none") for _, told in reports]) for name in names}
    name, values = next((name, values) for name, values in by_name.items() if len(values) > 1)
    return (
        f"{name} differs between processes: "
        + "; ".join(f"{value} on {ranks(where)}" for value, where in values.items())
        + f"; {_CURE}"
    )


def _by_value(values: Sequence[str]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for rank, value in enumerate(values):
        found.setdefault(value, []).append(rank)
    return found
