"""Memory estimate for one process of the real run: counted where possible, else measured small and scaled."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from harness.config import Recipe
from harness.models import LoadedModel

# float32: weights, gradients, and AdamW's two states.
BYTES_TRAINED = 4 + 4 + 8
BYTES_FROZEN = 4


@dataclass
class MemoryEstimate:
    """An estimate in bytes for one process.

    Left out: what a teacher's forward takes in passing, MFD's look at masked images, CUDA's own, slack.

    Attributes:
        trained: student and the loss's parameters: weights, gradients, AdamW's two states, float32.
        teachers: their weights, float32.
        activations: what the student's forward keeps for backward, for the pairs of one process (of one slice with
            train.accum_freq), in the recipe's precision.
        images: the batch as it is fed, and for each teacher of another size or normalisation.
        processes: how many share a batch.
        pairs: of one process and slice.
    """

    trained: int
    teachers: int
    activations: int
    images: int
    processes: int
    pairs: int

    @property
    def total(self) -> int:
        """The sum."""
        return self.trained + self.teachers + self.activations + self.images


def estimate(
    recipe: Recipe, student: LoadedModel, teachers: list[int], loss_parameters: int, processes: int
) -> MemoryEstimate:
    """Estimate a process's memory from the recipe's real batch size; sharding (fsdp2) is counted.

    Args:
        recipe: the real one.
        student: built, on the CPU; its batch statistics change.
        teachers: the number of parameters of each.
        loss_parameters: of the loss.
        processes: how many share the batch.
    """
    pairs = max(1, recipe.train.batch_size // (processes * recipe.train.accum_freq))
    half = recipe.train.precision != "fp32"
    fixed, slope = _kept_for_backward(student, half)
    shards = processes if recipe.train.parallel == "fsdp2" else 1
    side = recipe.data.image_size or student.image_size
    return MemoryEstimate(
        trained=BYTES_TRAINED * (student.parameters["total"] // shards + loss_parameters),
        teachers=0 if recipe.teacher_cache.use else BYTES_FROZEN * sum(teachers) // shards,
        activations=int(fixed + slope * pairs),
        images=pairs * 3 * side * side * 4 * (2 + len(teachers)),
        processes=processes,
        pairs=pairs,
    )


def _kept_for_backward(student: LoadedModel, half: bool) -> tuple[float, float]:
    """Bytes that a forward keeps, as (whatever the batch, for each pair): two batches make a line.

    bfloat16 on the CPU stands for either half precision: autocast casts the same layers, the copies of the weights that
    it makes being what does not grow with the batch.
    """
    few = 2 if any(isinstance(module, _BatchNorm) for module in student.model.modules()) else 1
    kept, more = (_bytes_kept(student, count, half) for count in (few, few + 1))
    slope = more - kept
    return max(0, kept - few * slope), slope


def _bytes_kept(student: LoadedModel, count: int, half: bool) -> int:
    model = student.model.train()
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def record(tensor: Tensor) -> None:
        """Nothing is packed, as there is no backward; a tensor packed as itself would hold its own graph for ever."""
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage  # held, so that no address is used twice

    images = torch.zeros(count, 3, student.image_size, student.image_size)
    tokens = student.tokenizer(["a photo of a cat"] * count)
    with (
        torch.autograd.graph.saved_tensors_hooks(record, _never),
        torch.autocast("cpu", torch.bfloat16, enabled=half),
    ):
        model(images, tokens)
    return sum(storage.nbytes() for storage in kept.values())


def _never(packed: None) -> Tensor:
    raise AssertionError("nothing is sent back through a forward that was only measured")
