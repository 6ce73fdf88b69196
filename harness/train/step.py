"""Forward and backward pass of one step: whole, or accumulated over micro-batches with exactly the same result."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from harness.errors import UserError
from harness.task import DistillTask, ModelInputs

Losses = dict[str, Tensor]
Scale = Callable[[Tensor], Tensor]


def check_batch_norm(student: nn.Module, pairs: int) -> None:
    """Refuse BatchNorm of a single pair: its mean is the pair itself, and torch takes none of one value a channel.

    Args:
        student: the model that is trained.
        pairs: of a micro-batch of one process.

    Raises:
        UserError: the student has BatchNorm and would see one pair at a time.
    """
    if pairs > 1:
        return
    name = next((name for name, module in student.named_modules() if isinstance(module, _BatchNorm)), None)
    if name is not None:
        raise UserError(
            f"the student has BatchNorm ({name}), which takes its statistics from the pairs of a micro-batch, and here "
            "that is one pair: make train.batch_size, divided by the number of processes and by train.accum_freq, at "
            "least 2"
        )


def forward_backward(
    task: DistillTask, inputs: ModelInputs, generator: Generator, accum_freq: int, scale: Scale
) -> tuple[Losses, Tensor]:
    """Add the gradients of the losses' sum to all trainable parameters.

    With several micro-batches the student first embeds the whole batch without a graph, the loss sees all embeddings at
    once, and then each micro-batch is embedded again, with the same random numbers, to take its rows of the loss's
    gradient (GradCache; open_clip's accum_freq). So N micro-batches give what one batch gives, for contrastive losses
    too, at the memory of one of them. BatchNorm alone sees micro-batches, as it sees each process's own rows.

    Args:
        task: student, teachers and loss.
        inputs: what student and teachers are fed, on the device.
        generator: source of MFD's masks.
        accum_freq: number of micro-batches; 1 keeps the graph of the whole batch.
        scale: applied to the total before backward, as fp16's loss scaler does.

    Returns:
        The weighted losses and the student's logit scale, detached.
    """
    if accum_freq == 1:
        outputs = task.encode(inputs, generator)
        losses = task.compute(outputs, task.teacher_forward(inputs))
        scale(_total(losses)).backward()
    else:
        outputs, losses = _accumulated(task, inputs, generator, accum_freq, scale)
    return {name: value.detach() for name, value in losses.items()}, outputs["logit_scale"].detach().reshape(())


def settle_buckets(task: DistillTask, inputs: ModelInputs, generator: Generator, accum_freq: int, scale: Scale) -> None:
    """Take a first step's passes and drop their gradients, so that DDP's buckets are the same in all steps that follow.

    DDP lays them out anew after its first backward pass, and a sum over three or more ranks is rounded by a value's
    place in its bucket: a resumed run's first step would be rounded otherwise than the uninterrupted run's.

    Args:
        task: as of `forward_backward`, and so are the others.
    """
    state = RngState.capture(generator)
    with _keep_batchnorm_buffers(task.student), _keep_buffers([task.loss]):
        forward_backward(task, inputs, generator, accum_freq, scale)
    state.restore(generator)
    for _, parameter in task.trainable():
        parameter.grad = None


def _accumulated(
    task: DistillTask, inputs: ModelInputs, generator: Generator, accum_freq: int, scale: Scale
) -> tuple[dict[str, Tensor], Losses]:
    parts = inputs.split(accum_freq)
    rng_states, outputs = [], []
    with torch.no_grad(), _keep_batchnorm_buffers(task.student):
        for part in parts:
            rng_states.append(RngState.capture(generator))
            outputs.append(task.encode(part, generator))
    by_part = [task.teacher_forward(part) for part in parts]
    teacher_outputs = [_concatenated(list(of_one)) for of_one in zip(*by_part, strict=True)]
    leaves = {name: value.detach().requires_grad_() for name, value in _concatenated(outputs).items()}
    losses = task.compute(leaves, teacher_outputs)
    scale(_total(losses)).backward()
    gradients = _split_gradients({name: leaf.grad for name, leaf in leaves.items()}, accum_freq)
    for number, (part, state, gradient) in enumerate(zip(parts, rng_states, gradients, strict=True)):
        state.restore(generator)
        last = number == accum_freq - 1
        with nullcontext() if last else _no_sync(task.encoder):
            again = task.encode(part, generator)
            names = [name for name, value in gradient.items() if value is not None and again[name].requires_grad]
            torch.autograd.backward([again[name] for name in names], [gradient[name] for name in names])
    return leaves, losses


def _concatenated(outputs: list[dict[str, Any]]) -> dict[str, Any]:
    """Rows of all micro-batches concatenated; a scale is the same in each."""
    return {
        name: torch.cat([output[name] for output in outputs]) if _has_rows(name) else value
        for name, value in outputs[0].items()
    }


def _total(losses: Losses) -> Tensor:
    return reduce(torch.add, losses.values())


def _has_rows(name: str) -> bool:
    return name.endswith("_features")


def _split_gradients(gradients: dict[str, Tensor | None], accum_freq: int) -> list[dict[str, Tensor | None]]:
    """Each micro-batch's rows; a scale's whole gradient goes with the last one, after which DDP averages."""
    shares: list[dict[str, Tensor | None]] = [{} for _ in range(accum_freq)]
    for name, gradient in gradients.items():
        if gradient is None or not _has_rows(name):
            shares[-1][name] = gradient
            continue
        for share, rows in zip(shares, gradient.chunk(accum_freq), strict=True):
            share[name] = rows
    return shares


@contextmanager
def _no_sync(encoder: nn.Module) -> Iterator[None]:
    """Accumulate gradients locally, without averaging them over the ranks: until the last micro-batch."""
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


def _keep_batchnorm_buffers(model: nn.Module) -> AbstractContextManager[None]:
    """Put BatchNorm's statistics back afterwards: the second forward pass updates them again."""
    return _keep_buffers([module for module in model.modules() if isinstance(module, _BatchNorm)])


@contextmanager
def _keep_buffers(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Put these modules' buffers back afterwards: a loss's queue would take a batch in twice."""
    before = [(buffer, buffer.clone()) for module in modules for buffer in module.buffers()]
    yield
    for buffer, value in before:
        buffer.copy_(value)


@dataclass(frozen=True)
class RngState:
    """States of the random generators that a forward pass may draw from."""

    cpu: Tensor
    cuda: Tensor | None
    own: Tensor

    @classmethod
    def capture(cls, generator: Generator) -> RngState:
        """The states now."""
        cuda = torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None
        return cls(torch.get_rng_state(), cuda, generator.get_state())

    def restore(self, generator: Generator) -> None:
        """Put the states back."""
        torch.set_rng_state(self.cpu)
        if self.cuda is not None:
            torch.cuda.set_rng_state(self.cuda)
        generator.set_state(self.own)
