"""One call of a loss together with the other processes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kdlosses.distributed import columns, sharded
from kdlosses.distributed.agreement import agree
from kdlosses.distributed.parameters import check_equal
from kdlosses.distributed.shard import place
from kdlosses.inputs import Inputs

if TYPE_CHECKING:
    from kdlosses.base import DistillLoss


# Waiting for other processes is not something that a graph can hold.
@torch.compiler.disable  # type: ignore[untyped-decorator]  # torch has no types for it
def weighted_terms(loss: DistillLoss, read: Callable[[], list[Inputs]]) -> dict[str, Tensor]:
    """The weighted terms of all processes' rows, with the gradient of this process's.

    Args:
        loss: whose terms they are.
        read: validates this process's inputs.

    Raises:
        ValueError: on every process, where one has failed or differs.
    """
    shard = place(loss.group)
    inputs, compare = agree(shard, read, partial(_describe, loss), not loss.compared)
    # Once for each loss, as it costs a broadcast for each parameter; any process that has yet to makes all do it.
    if compare:
        check_equal(shard, loss)
    loss.compared = True
    losses = loss.weighted_terms(inputs, partial(sharded.evaluate, shard))
    # Stacked, so that one collective carries all terms.
    values = columns.mean(shard, torch.stack(list(losses.values())))
    return dict(zip(losses, values.unbind(), strict=True))


def _describe(loss: DistillLoss, inputs: list[Inputs]) -> dict[str, str]:
    """What must be equal on all processes, by name: it decides which collectives there will be, forward and back."""
    trained = [name for name, parameter in loss.named_parameters() if parameter.requires_grad]
    told = {
        "the loss": f"{type(loss).__name__} of {loss.weights}, variant {loss.variant}, training {trained}",
        "the set of options": str(loss.term_options),
        "the number of rows": str(len(inputs[0].image)),
        "grad mode": str(torch.is_grad_enabled()),
    }
    for number, one in enumerate(inputs):
        for name, value in one.features().items():
            suffix = " with gradient" if value.requires_grad else ""
            key = f"{name}[{number}]" if number and name.startswith("dist_") else name
            told[key] = f"width {value.shape[1]}, {value.dtype}{suffix}"
    return told
