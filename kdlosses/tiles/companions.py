"""Passes side by side over the same tiles: what several jobs read is computed once a tile, not once a job."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

from kdlosses.relation import Relation
from kdlosses.tiles.program import Job

Pass = Generator[None, None, Any]
# Each has some tiles of its own that outlive a step: more of them would cost more memory than a product is worth.
_AT_MOST = 3


def in_step(passes: Sequence[Pass]) -> list[Any]:
    """What the passes return, all of which stop as many times."""
    found: list[Any] = [None] * len(passes)
    going = list(enumerate(passes))
    while going:
        left = []
        for number, one in going:
            try:
                next(one)
            except StopIteration as end:
                found[number] = end.value
            else:
                left.append((number, one))
        going = left
    return found


def side_by_side(jobs: Sequence[Job]) -> list[list[int]]:
    """The jobs by number, those together that share a relation, a few at most."""
    groups: list[list[int]] = []
    for number, job in enumerate(jobs):
        for group in groups:
            if len(group) < _AT_MOST and any(_share(jobs[other], job) for other in group):
                group.append(number)
                break
        else:
            groups.append([number])
    return groups


def _share(first: Job, second: Job) -> bool:
    read = _read(first)
    same_tiles = first.relation.shape == second.relation.shape
    return same_tiles and any(one is other for one in read for other in _read(second))


def _read(job: Job) -> list[Relation]:
    """What tiles are made of as they are; those of a transpose are made by itself."""
    relations = [job.relation] if job.teacher is None else [job.relation, job.teacher]
    return [relation.computed for relation in relations if relation.source is None]
