"""A forward hook that computes a loss within the forward of the student that it is attached to."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from kdlosses.integrations.attach import NAME
from kdlosses.integrations.model_adapters import named_features


class LossForwardHook:
    """Forward hook: while a teacher's features are at hand, a student gives the terms of its ``kd_loss`` instead.

    With the terms come the student's features, without gradient: what DDP finds in an output and no loss reads, such
    as the logits of a SigLIP student without a sigmoid term, would keep it waiting for gradients.
    """

    teacher: dict[str, Tensor] | None = None  # {} for a loss that reads none

    def __call__(self, student: nn.Module, arguments: Any, output: Any) -> dict[str, dict[str, Tensor]] | None:
        if self.teacher is None:
            return None
        features = named_features(student, output)
        terms: dict[str, Tensor] = student.get_submodule(NAME)(**features, **self.teacher, output_dict=True)
        return {"terms": terms, "features": {name: value.detach() for name, value in features.items()}}
