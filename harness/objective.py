"""The recipe's loss, sized for its models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import kdlosses
from harness.config import LossConfig
from harness.errors import UserError
from harness.models import LoadedModel
from kdlosses import CLIPKDLoss, DistillLoss
from kdlosses.backends import create


def build_loss(
    config: LossConfig,
    student: LoadedModel,
    teachers: Sequence[LoadedModel],
    weights: Sequence[float] | None = None,
) -> DistillLoss:
    """The weighted sum of terms; with several teachers, over all of them.

    Raises:
        UserError: the recipe's ``loss`` section does not fit the models.
    """
    try:
        options = config.backend_options
        backend = create(config.backend, **options) if options else config.backend
        settings: dict[str, Any] = {"variant": config.variant, "backend": backend}
        settings |= {"options": config.options, "terms": config.terms}
        if not teachers:
            return CLIPKDLoss(dict(config.weights), **settings)
        settings["student_dim"] = student.embed_dim
        if len(teachers) == 1:
            return CLIPKDLoss(dict(config.weights), teacher_dim=teachers[0].embed_dim, **settings)
        widths = [teacher.embed_dim for teacher in teachers]
        return kdlosses.MultiTeacherLoss(dict(config.weights), teacher_dims=widths, teacher_weights=weights, **settings)
    except ValueError as error:
        raise UserError(f"recipe key loss: {error}") from error


def check_biases(config: LossConfig, student: LoadedModel, teachers: Sequence[LoadedModel]) -> None:
    """Refuse a model without the ``logit_bias`` that a term reads.

    Raises:
        UserError: naming the model and the term.
    """
    for need, role, models, cure in (
        ("bias", "student", [student], "give its config `init_logit_bias: -10`, or take a SigLIP"),
        ("teacher_bias", "teacher", teachers, "take a SigLIP; a CLIP's sigmoid means nothing, its softmax is for crd"),
    ):
        for term in config.reading(need):
            for model in models:
                if getattr(model.model, "logit_bias", None) is None:
                    raise UserError(
                        f"{role} {model.name} has no logit_bias, which loss.weights.{term} reads as it takes sigmoids; "
                        f"{cure}, or set the weight to 0"
                    )


def reads_student_scale(config: LossConfig) -> bool:
    """Whether any term's gradient reaches the student's logit scale."""
    # A term that is told a constant scale reads that one.
    return any(config.told(term).get("student_scale") is None for term in config.reading("scale"))
