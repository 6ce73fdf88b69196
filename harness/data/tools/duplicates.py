"""Keys that occur more than once in a data set."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

import numpy as np


def fingerprint(key: str) -> int:
    """Return 64 bits for a key: millions of them fit into memory, and two keys share one about never."""
    return int.from_bytes(blake2b(key.encode("utf-8", "backslashreplace"), digest_size=8).digest(), "big")


@dataclass(frozen=True)
class Duplicates:
    """Samples whose key an earlier sample has.

    Attributes:
        inside: how many repeat a key of their own shard.
        between: how many repeat a key of another shard only.
        first: for each of the two, the places (earlier, later) of an example, None if there is none.
    """

    inside: int
    between: int
    first: tuple[tuple[int, int] | None, tuple[int, int] | None]


def find_duplicates(prints: np.ndarray, shards: np.ndarray) -> Duplicates:
    """Compare all samples.

    Args:
        prints: the keys' fingerprints, uint64 [N], in the order of the data.
        shards: the number of each sample's shard, integers [N].
    """
    order = np.argsort(prints, kind="stable")  # samples with the same key stay in order, so shards are side by side
    same = prints[order[1:]] == prints[order[:-1]]
    earlier, later = order[:-1][same], order[1:][same]
    inside = shards[earlier] == shards[later]
    examples = (_first(earlier[inside], later[inside]), _first(earlier[~inside], later[~inside]))
    return Duplicates(int(inside.sum()), int((~inside).sum()), examples)


def _first(earlier: np.ndarray, later: np.ndarray) -> tuple[int, int] | None:
    if len(later) == 0:
        return None
    place = later.argmin()
    return int(earlier[place]), int(later[place])
