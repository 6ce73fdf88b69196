"""Missing numbers in a row of shards, as a failed download leaves them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

_NUMBERED = re.compile(r"(.*?)(\d+)(\D*)")  # the last number of a name: a prefix such as cc12m may hold others


@dataclass(frozen=True)
class Gaps:
    """The numbers that are missing between the first and the last shard of one name.

    Attributes:
        name: the shards' name with # in place of the number.
        ranges: the missing ones, such as "00003" and "00007-00009".
        count: how many are missing.
    """

    name: str
    ranges: list[str]
    count: int


def find_gaps(shards: Iterable[str]) -> list[Gaps]:
    """Return what is missing, for each row of like-named shards that lacks a number."""
    rows: dict[tuple[str, str], dict[int, str]] = defaultdict(dict)
    for shard in shards:
        folder, slash, name = shard.rpartition("/")
        stem, dot, ending = name.partition(".")
        if match := _NUMBERED.fullmatch(stem):
            before, number, after = match.groups()
            rows[folder + slash + before, after + dot + ending][int(number)] = number
    return [gaps for name, row in rows.items() if (gaps := _gaps(name, row)).count]


def _gaps(name: tuple[str, str], row: dict[int, str]) -> Gaps:
    width = min(len(text) for text in row.values())
    missing = [(low + 1, high - 1) for low, high in pairwise(sorted(row)) if high - low > 1]
    ranges = [f"{low:0{width}d}" + (f"-{high:0{width}d}" if high > low else "") for low, high in missing]
    return Gaps("#".join(name), ranges, sum(high - low + 1 for low, high in missing))
