"""The embeddings that every implementation of a case gets, of unit length, as open_clip's models return them."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from harness.bench.losses.cases import Case

SEED = 20231
STUDENT_SCALE, TEACHER_SCALE = 1 / 0.07, 50.0  # a student at its start; no logit so far below the top as to be denormal
STUDENT_BIAS, TEACHER_BIAS = -10.0, -15.0
PAIR_COSINE = 0.4


@dataclass(frozen=True)
class LossInputs:
    """Arguments of a loss, in its order. The student's features and scale are leaves that ask for a gradient."""

    image: Tensor
    text: Tensor
    scale: Tensor
    teacher_image: Tensor
    teacher_text: Tensor
    teacher_scale: Tensor
    bias: Tensor
    teacher_bias: Tensor

    @property
    def arguments(self) -> tuple[Tensor, ...]:
        """In the order of the losses' forward."""
        return (self.image, self.text, self.scale, self.teacher_image, self.teacher_text, self.teacher_scale)

    @property
    def student(self) -> tuple[Tensor, Tensor, Tensor]:
        """The leaves that every loss has."""
        return (self.image, self.text, self.scale)

    @property
    def biases(self) -> dict[str, Tensor]:
        """What the sigmoid terms take besides, by keyword; the student's is a leaf."""
        return {"logit_bias": self.bias, "dist_logit_bias": self.teacher_bias}

    def to(self, dtype: torch.dtype) -> LossInputs:
        """The same numbers in another dtype; what asked for a gradient still does."""

        def converted(tensor: Tensor) -> Tensor:
            return tensor.detach().to(dtype).requires_grad_(tensor.requires_grad)

        return LossInputs(**{field.name: converted(getattr(self, field.name)) for field in fields(self)})


def make_inputs(case: Case) -> LossInputs:
    """Seeded pairs: image and text of one pair have a cosine near 0.4, all others near 0."""
    generator = Generator(case.device).manual_seed(SEED)
    with torch.no_grad():
        image, text = _pairs(case, case.dim, generator)
        teacher_image, teacher_text = _pairs(case, case.teacher_dim, generator)
    scale, teacher_scale, bias, teacher_bias = (
        torch.full((), number, dtype=case.wide_dtype, device=case.device)
        for number in (STUDENT_SCALE, TEACHER_SCALE, STUDENT_BIAS, TEACHER_BIAS)
    )
    image, text, scale, bias = (leaf.requires_grad_() for leaf in (image, text, scale, bias))
    return LossInputs(image, text, scale, teacher_image, teacher_text, teacher_scale, bias, teacher_bias)


def _pairs(case: Case, width: int, generator: Generator) -> tuple[Tensor, Tensor]:
    shape = (case.batch, width)
    # Drawn in float32, the same numbers for every dtype; of unit length in the widest.
    drawn = (torch.randn(shape, generator=generator, device=case.device).to(case.wide_dtype) for _ in range(2))
    image, noise = (F.normalize(rows, dim=1) for rows in drawn)
    text = F.normalize(PAIR_COSINE * image + (1 - PAIR_COSINE**2) ** 0.5 * noise, dim=1)
    return image.to(case.torch_dtype), text.to(case.torch_dtype)
