"""Distillation task: student, frozen teachers and loss, in the parts that a training step is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor, nn

from harness.config import LossConfig
from harness.data import Batch, prepare
from harness.encoder import Encoder
from harness.models import LoadedModel, freeze
from harness.objective import build_loss, check_biases, reads_student_scale

Preprocessing = tuple[int, tuple[float, float, float], tuple[float, float, float]]


@dataclass(frozen=True)
class ModelInputs:
    """Model inputs of one batch, on the device.

    Args:
        image: ``[B, 3, S, S]``, normalised for the student.
        tokens: ``[B, L]`` for the student.
        teachers: each teacher's ``(image, tokens)``; from a cache, its embeddings ``[B, D]`` of both.
    """

    image: Tensor
    tokens: Tensor
    teachers: tuple[tuple[Tensor, Tensor], ...] = ()

    def split(self, count: int) -> list[ModelInputs]:
        """``count`` slices of equal size."""
        images, tokens = self.image.chunk(count), self.tokens.chunk(count)
        teachers = [
            tuple((image.chunk(count)[i], ids.chunk(count)[i]) for image, ids in self.teachers) for i in range(count)
        ]
        return [ModelInputs(*parts) for parts in zip(images, tokens, teachers, strict=True)]


class DistillTask(nn.Module):
    """One training step's models and loss.

    Args:
        student: the model that is trained.
        teachers: the models it learns from; none for plain training.
        config: the recipe's ``loss`` section.
        autocast: dtype of the models' autocast, or None for float32. The losses compute in float32 either way.
        weights: of the teachers; equal by default.
    """

    def __init__(
        self,
        student: LoadedModel,
        teachers: Sequence[LoadedModel],
        config: LossConfig,
        autocast: torch.dtype | None = None,
        weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.student = student.model
        self.loss = build_loss(config, student, teachers, weights)
        # Teachers whose every term has weight 0 are not run.
        self.live = [teacher for teacher in teachers if config.reading("teacher")]
        check_biases(config, student, self.live)
        self.teachers = nn.ModuleList(freeze(teacher.model) for teacher in self.live)
        self.encoder: nn.Module = Encoder(student, config, autocast)
        self.autocast = autocast
        self._preprocessings = [_preprocessing(model) for model in (student, *self.live)]
        # With FSDP2 torch.no_grad: it gathers parameters into tensors that inference mode would not let it free.
        self.teacher_grad_mode: Callable[[], AbstractContextManager[Any]] = torch.inference_mode
        # Without a gradient DDP would wait for one for ever; alone, AdamW would leave it as it is.
        if getattr(self.student, "logit_bias", None) is not None and not config.reading("bias"):
            self.student.logit_bias.requires_grad_(False)  # a constant on all logits: no softmax sees it
        if not reads_student_scale(config):
            self.student.logit_scale.requires_grad_(False)

    def train(self, mode: bool = True) -> DistillTask:
        """Switch the student's mode; teachers stay in eval."""
        super().train(mode)
        self.teachers.eval()
        return self

    def trainable(self) -> list[tuple[str, nn.Parameter]]:
        """The parameters to optimize, by name: the student's begin with ``student.``, the loss's own with ``loss.``."""
        owners = (("student", self.student), ("loss", self.loss))
        named = [(f"{owner}.{name}", p) for owner, module in owners for name, p in module.named_parameters()]
        return [(name, p) for name, p in named if p.requires_grad]

    def inputs(self, view: Tensor, batch: Batch) -> ModelInputs:
        """Inputs of each model; models that agree on size and normalisation share them.

        Args:
            view: ``[B, 3, S, S]`` images in 0..1, the one view that student and teachers share.
            batch: its token ids, and the cached teacher outputs of this view, where the recipe reads a cache.
        """
        made: dict[Preprocessing, Tensor] = {}
        cached = None if batch.cached is None else batch.cached.to(view.device)
        for wanted in self._preprocessings if cached is None else self._preprocessings[:1]:
            if wanted not in made:
                made[wanted] = prepare(view, *wanted)
        # Tokenizers that agree share a tensor, which moves once.
        moved = {id(ids): ids.to(view.device, non_blocking=True) for ids in batch.tokens.values()}
        tokens = {name: moved[id(ids)] for name, ids in batch.tokens.items()}
        if cached is not None:
            # Without a term that reads the teachers, the cache still says which views the student sees.
            return ModelInputs(made[self._preprocessings[0]], tokens["student"], cached.features if self.live else ())
        roles = zip(teacher_roles(len(self.live)), self._preprocessings[1:], strict=True)
        teachers = tuple((made[wanted], tokens[role]) for role, wanted in roles)
        return ModelInputs(made[self._preprocessings[0]], tokens["student"], teachers)

    def encode(self, inputs: ModelInputs, generator: Generator) -> dict[str, Tensor]:
        """The student's embeddings, its scale and bias, and for MFD the embeddings of masked images."""
        outputs: dict[str, Tensor] = self.encoder(inputs.image, inputs.tokens, generator)
        return outputs

    def teacher_forward(self, inputs: ModelInputs) -> list[dict[str, Tensor]]:
        """Each teacher's embeddings, scale and bias."""
        device = inputs.image.device.type
        with self.teacher_grad_mode(), torch.autocast(device, dtype=self.autocast, enabled=self.autocast is not None):
            return [model(*given) for model, given in zip(self.teachers, inputs.teachers, strict=True)]

    def compute(self, outputs: dict[str, Tensor], teacher_outputs: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """The weighted losses, whose sum is minimised."""
        losses: dict[str, Tensor] = self.loss(**outputs, **_teacher_arguments(teacher_outputs), output_dict=True)
        return losses

    def forward(self, inputs: ModelInputs, generator: Generator) -> dict[str, Tensor]:
        """All of it for one batch."""
        return self.compute(self.encode(inputs, generator), self.teacher_forward(inputs))


def teacher_roles(count: int) -> list[str]:
    """What the teachers are called where things are kept by name: one is the teacher, several have numbers."""
    return ["teacher"] if count == 1 else [f"teacher-{number}" for number in range(1, count + 1)]


def _teacher_arguments(outputs: list[dict[str, Tensor]]) -> dict[str, Any]:
    if len(outputs) < 2:
        return {f"dist_{name}": value for teacher in outputs for name, value in teacher.items()}
    # A SigLIP has a bias beside its scale, another teacher none: None in its place, which no softmax minds.
    names = dict.fromkeys(name for teacher in outputs for name in teacher)
    return {f"dist_{name}": [teacher.get(name) for teacher in outputs] for name in names}


def _preprocessing(model: LoadedModel) -> Preprocessing:
    return model.image_size, model.mean, model.std
