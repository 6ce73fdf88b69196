"""How far several softmax distributions are from their mixture, a block of whole rows at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from kdlosses.requests import JensenShannon
from kdlosses.rows import Rows
from kdlosses.tiles.blocks import Positives, blocks

# Elements of one block of rows of one relation. On CPUs it should stay in the cache; a GPU wants work for a launch.
_BLOCK = {"cpu": 2**20}
_LARGE_BLOCK = 2**25
_LEAST_ROWS = 16  # or a product would be bound by reading the keys


@torch.no_grad()
def jensen_shannon(request: JensenShannon) -> Tensor:
    """``[N]``: the generalised Jensen-Shannon divergence of the relations' rows.

    Memory: the unit keys, and for each relation a few blocks of whole rows.
    """
    count, width = request.of[0].shape
    device = request.of[0].queries.values.device.type
    height = max(_LEAST_ROWS, _BLOCK.get(device, _LARGE_BLOCK) // width)
    keys = [_unit(relation.keys, slice(None)) for relation in request.of]
    found = []
    for rows in blocks(count, height):
        logs = []
        for relation, unit in zip(request.of, keys, strict=True):
            logits = (_unit(relation.queries, rows) * relation.scale) @ unit.T
            if relation.diagonal == "excluded":
                Positives.of_tile(rows, slice(0, width), relation.offset).exclude(logits)
            logs.append(torch.log_softmax(logits, dim=1))
        found.append(_spread(logs, request.weights))
    return torch.cat(found)


def _spread(logs: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Of log-probabilities ``[R, M]``, one tensor for each distribution."""
    mixture = logs[0] + math.log(weights[0])
    for log, weight in zip(logs[1:], weights[1:], strict=True):
        mixture = torch.logaddexp(mixture, log + math.log(weight))
    # KL by KL, not as a difference of entropies: each is small where the distributions agree.
    parts = [weight * (log.exp() * (log - mixture)).sum(1) for log, weight in zip(logs, weights, strict=True)]
    return torch.stack(parts).sum(0)


def _unit(rows: Rows, block: slice) -> Tensor:
    return rows.values[block] * rows.inverse_norms[block, None]
