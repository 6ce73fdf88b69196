"""Forward and backward of one step: at once, or in slices with exactly the same result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from harness.task import DistillTask, Inputs

Losses = dict[str, Tensor]
Scale = Callable[[Tensor], Tensor]


def forward_backward(
    task: DistillTask, inputs: Inputs, generator: Generator, slices: int, scale: Scale
) -> tuple[Losses, Tensor]:
    """Add the gradients of the losses' sum to all trainable parameters.

    With several slices the student's embeddings of the whole batch are made first, without a graph; the loss sees them
    all at once; then each slice is embedded again, with the same random numbers, and its share of the loss's gradient
    is sent through it. So N slices give what one batch gives, for contrastive losses too, at the memory of a slice.
    BatchNorm alone sees slices, as it sees each process's own rows.

    Args:
        task: student, teachers and loss.
        inputs: what student and teachers are fed, on the device.
        generator: source of MFD's masks.
        slices: how many; 1 keeps the graph of the whole batch.
        scale: applied to the total before backward, as fp16's loss scaler does.

    Returns:
        The weighted losses and the student's logit scale, detached.
    """
    if slices == 1:
        outputs = task.encode(inputs, generator)
        losses = task.compute(outputs, task.teach(inputs))
        scale(sum(losses.values())).backward()
    else:
        outputs, losses = _sliced(task, inputs, generator, slices, scale)
    return {name: value.detach() for name, value in losses.items()}, outputs["logit_scale"].detach().reshape(())


def _sliced(
    task: DistillTask, inputs: Inputs, generator: Generator, slices: int, scale: Scale
) -> tuple[dict[str, Tensor], Losses]:
    parts = inputs.split(slices)
    randomness, outputs = [], []
    with torch.no_grad(), _keeping_statistics(task.student):
        for part in parts:
            randomness.append(Randomness.now(generator))
            outputs.append(task.encode(part, generator))
    taught = [_joined(list(slices_of_one)) for slices_of_one in zip(*(task.teach(part) for part in parts), strict=True)]
    leaves = {name: value.detach().requires_grad_() for name, value in _joined(outputs).items()}
    losses = task.compute(leaves, taught)
    scale(sum(losses.values())).backward()
    gradients = _shares({name: leaf.grad for name, leaf in leaves.items()}, slices)
    for number, (part, state, gradient) in enumerate(zip(parts, randomness, gradients, strict=True)):
        state.restore(generator)
        last = number == slices - 1
        with nullcontext() if last else _unsynchronised(task.encoder):
            again = task.encode(part, generator)
            names = [name for name, value in gradient.items() if value is not None and again[name].requires_grad]
            torch.autograd.backward([again[name] for name in names], [gradient[name] for name in names])
    return leaves, losses


def _joined(outputs: list[dict[str, Any]]) -> dict[str, Any]:
    """Rows of all slices under one another; a scale is the same in each."""
    return {
        name: torch.cat([output[name] for output in outputs]) if _has_rows(name) else value
        for name, value in outputs[0].items()
    }


def _has_rows(name: str) -> bool:
    return name.endswith("_features")


def _shares(gradients: dict[str, Tensor | None], slices: int) -> list[dict[str, Tensor | None]]:
    """Each slice's rows; a scale's whole gradient goes with the last slice, after which DDP averages."""
    shares: list[dict[str, Tensor | None]] = [{} for _ in range(slices)]
    for name, gradient in gradients.items():
        if gradient is None or not _has_rows(name):
            shares[-1][name] = gradient
            continue
        for share, rows in zip(shares, gradient.chunk(slices), strict=True):
            share[name] = rows
    return shares


@contextmanager
def _unsynchronised(encoder: nn.Module) -> Iterator[None]:
    """Let gradients add up on each process until the last slice."""
    if isinstance(encoder, DistributedDataParallel):
        with encoder.no_sync():
            yield
        return
    set_sync = getattr(encoder, "set_requires_gradient_sync", None)  # FSDP2
    if set_sync:
        set_sync(False)
    try:
        yield
    finally:
        if set_sync:
            set_sync(True)


@contextmanager
def _keeping_statistics(model: nn.Module) -> Iterator[None]:
    """Undo what BatchNorm notes down: the second pass over the slices notes it again."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    before = [(buffer, buffer.clone()) for norm in norms for buffer in norm.buffers()]
    yield
    for buffer, value in before:
        buffer.copy_(value)


@dataclass(frozen=True)
class Randomness:
    """The states of the generators that a forward pass may draw from."""

    cpu: Tensor
    cuda: Tensor | None
    own: Tensor

    @classmethod
    def now(cls, generator: Generator) -> Randomness:
        """As they are."""
        cuda = torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None
        return cls(torch.get_rng_state(), cuda, generator.get_state())

    def restore(self, generator: Generator) -> None:
        """As they were."""
        torch.set_rng_state(self.cpu)
        if self.cuda is not None:
            torch.cuda.set_rng_state(self.cuda)
        generator.set_state(self.own)
