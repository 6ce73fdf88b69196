"""The forward pass: one look at each tile gives the statistics of its rows and of its columns."""

from __future__ import annotations

from collections.abc import Generator

import torch
from torch import Tensor

from kdlosses.relation import no_logit
from kdlosses.tiles.blocks import Positives, Workspace
from kdlosses.tiles.program import Job
from kdlosses.tiles.statistics import Statistics, merge
from kdlosses.tiles.walk import Walk


def measuring(job: Job, walk: Walk) -> Generator[None, None, Statistics]:
    """Returns the statistics of all directions that ``job`` asks for; stops after each tile."""
    relations = [job.relation] if job.teacher is None else [job.relation, job.teacher]
    # A row without a positive has one of which every softmax is zero: the rest need not tell them apart.
    positive = no_logit(walk.work.dtype) if job.relation.diagonal == "none" else 0.0
    shape = len(relations), job.relation.shape[0]
    positives = torch.full(shape, positive, dtype=walk.work.dtype, device=walk.work.device)
    running: dict[tuple[bool, int], Tensor] = {}
    for rows, cols, where in walk.tiles():
        logits = [walk.logits(f"logits {i}", relation, rows, cols) for i, relation in enumerate(relations)]
        if where.any:
            for row, tile in zip(positives, logits, strict=True):
                row[where.rows] = where.of(tile)
        if job.reverse:  # the same sums, of the student's softmax instead of the teacher's
            logits.reverse()
        for across in job.directions:
            key = (across, (cols if across else rows).start)
            part = _of_tile(logits, 0 if across else 1, where, walk.work, job.entropy)
            running[key] = merge(torch.stack([running[key], part])) if key in running else part
        yield
    if job.reverse:
        positives = positives.flip(0)
    return Statistics(_joined(running, False), _joined(running, True), positives)


def _of_tile(logits: list[Tensor], dim: int, where: Positives, work: Workspace, entropy: bool) -> Tensor:
    """Statistics of one tile along ``dim``, stacked as in ``statistics``."""
    shifted, peaks = [], []
    for i, tile in enumerate(logits):
        peaks.append(tile.amax(dim))
        shifted.append(torch.sub(tile, peaks[i].unsqueeze(dim), out=work.get(f"shifted {i}", *tile.shape)))
    gap = None if len(logits) == 1 else torch.sub(shifted[1], shifted[0], out=work.get("gap", *logits[0].shape))
    own = torch.mul(shifted[1], 1, out=work.get("own", *logits[0].shape)) if entropy else None
    stack = []
    for peak, tile in zip(peaks, shifted, strict=True):
        where.zero(tile.exp_())
        stack += [peak, tile.sum(dim)]
    if gap is not None:
        stack.append(gap.mul_(shifted[1]).sum(dim))
    if own is not None:
        stack.append(own.mul_(shifted[1]).sum(dim))
    return torch.stack(stack)


def _joined(running: dict[tuple[bool, int], Tensor], across: bool) -> Tensor | None:
    parts = [part for (key, _), part in running.items() if key == across]
    return torch.cat(parts, dim=1) if parts else None
