"""Locks on a teacher cache: commands with different shards share the work, those with the same parts do not."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from harness.locks import hold_lock, refuse_held

_LOCKS = "locks"
_HELD = "another clipkd teacher precompute is writing to"
_WAY_OUT = "give both commands a --shard of their own"


@contextmanager
def lock_caches(folders: Iterable[Path], number: int, count: int) -> Iterator[None]:
    """Hold shard ``number`` of ``count`` of each cache folder.

    Raises:
        UserError: another process makes some of the same parts.
    """
    with ExitStack() as held:
        for folder in sorted(folders):
            own = folder / _LOCKS / f"{number}-of-{count}"
            own.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(hold_lock(own, folder, _HELD, _WAY_OUT))
            for other in sorted(own.parent.glob("*-of-*")):
                if other != own and _overlap(other.name, number, count):
                    refuse_held(other, folder, _HELD, _WAY_OUT)
        yield


def _overlap(name: str, number: int, count: int) -> bool:
    match = re.fullmatch(r"(\d+)-of-(\d+)", name)
    return match is not None and (int(match[1]) - number) % math.gcd(int(match[2]), count) == 0
