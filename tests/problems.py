"""Small reproducible distillation problems: forward keywords from a handful of numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

STUDENT = ("image_features", "text_features", "logit_scale")
TEACHER = ("dist_image_features", "dist_text_features", "dist_logit_scale")
BIASES = ("logit_bias", "dist_logit_bias")  # softmax terms must not notice them, so every problem has them

Inputs = dict[str, Tensor]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@dataclass(frozen=True)
class Problem:
    """A batch of raw (not normalised) student and teacher rows; equal numbers give equal tensors."""

    batch: int = 5
    student_dim: int = 6
    teacher_dim: int = 6
    scale: float = 14.3
    teacher_scale: float = 20.0
    bias: float = -3.0
    teacher_bias: float = -2.5
    duplicates: bool = False
    seed: int = 0

    @property
    def dims(self) -> dict[str, int]:
        return {"student_dim": self.student_dim, "teacher_dim": self.teacher_dim}

    def with_(self, **changes: object) -> Problem:
        return replace(self, **changes)

    def inputs(self, dtype: torch.dtype = torch.float64) -> Inputs:
        generator = seeded(self.seed)

        def rows(dim: int) -> Tensor:
            lengths = 0.5 + 2.5 * torch.rand(self.batch, 1, generator=generator, dtype=torch.float64)
            directions = torch.randn(self.batch, dim, generator=generator, dtype=torch.float64)
            if self.duplicates:
                directions[self.batch // 2 :] = directions[0]
            return (lengths * directions).to(dtype)

        width, teacher_width = self.student_dim, self.teacher_dim
        return {
            "image_features": rows(width),
            "text_features": rows(width),
            "logit_scale": torch.tensor(self.scale, dtype=dtype),
            "dist_image_features": rows(teacher_width),
            "dist_text_features": rows(teacher_width),
            "dist_logit_scale": torch.tensor(self.teacher_scale, dtype=dtype),
            "logit_bias": torch.tensor(self.bias, dtype=dtype),
            "dist_logit_bias": torch.tensor(self.teacher_bias, dtype=dtype),
        }


def student_is_teacher(inputs: Inputs) -> Inputs:
    """The same problem with the teacher's features, scale and bias set to the student's."""
    pairs = [*zip(STUDENT, TEACHER, strict=True), BIASES]
    return inputs | {teacher: inputs[student].clone() for student, teacher in pairs}


def permuted(inputs: Inputs, order: Tensor) -> Inputs:
    """The same pairs in another order."""
    return {name: value[order] if value.ndim else value for name, value in inputs.items()}
