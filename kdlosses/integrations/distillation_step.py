"""One batch through student and teacher, whichever framework each is from: the weighted terms of a loss."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from kdlosses.base import DistillLoss
from kdlosses.integrations.model_adapters import Batch, bare_model, features_of, vocabulary_size

PREFIX = "teacher_"
# What belongs to a text, in either framework's words; all else in a batch belongs to the image.
_TEXT = frozenset({"text", "input_ids", "attention_mask", "token_type_ids", "position_ids"})


def distillation_loss(
    student: nn.Module, teacher: nn.Module | None, loss: nn.Module, batch: Batch
) -> dict[str, Tensor]:
    """The weighted terms of ``loss`` for one batch; their sum is what to call ``backward`` on.

    For loops of one's own: each of student and loss may be wrapped in DDP (``accelerator.prepare``).

    Args:
        student: see `features_of`.
        teacher: likewise, in ``eval()``; runs without gradients. None for a loss that reads no teacher.
        loss: any `kdlosses.DistillLoss`.
        batch: what the student is called with, as in `features_of`, and what of it the teacher gets; see
            `teacher_batch`.

    Returns:
        ``{"<term>_loss": weighted 0-d tensor}``.

    Raises:
        ValueError: where the teacher is in training mode, and what `features_of` and the loss raise.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from kdlosses import CLIPKDLoss
        >>> from kdlosses.integrations.distillation_step import distillation_loss
        >>> class TinyCLIP(nn.Module):
        ...     def forward(self, image, text):
        ...         return image, text, torch.tensor(100.0)
        >>> _ = torch.manual_seed(0)
        >>> student, teacher, loss = TinyCLIP(), TinyCLIP().eval(), CLIPKDLoss({"contrastive": 1.0, "crd": 1.0})
        >>> terms = distillation_loss(student, teacher, loss, (torch.randn(8, 16), torch.randn(8, 16)))
        >>> terms["crd_loss"]  # zero, as both models are one
        tensor(0.)
        >>> list(terms)
        ['contrastive_loss', 'crd_loss']
    """
    outputs = teacher_features(teacher, batch, student)
    terms: dict[str, Tensor] = loss(**features_of(student, batch), **outputs, output_dict=True)
    return terms


def teacher_features(teacher: nn.Module | None, batch: Batch, student: nn.Module | None = None) -> dict[str, Tensor]:
    """The teacher's outputs under the loss's keywords (``dist_image_features``, ...), without gradients.

    Warns where it reads the tokens of a ``student`` that knows another number of them.

    Args:
        teacher: see `distillation_loss`.
        batch: likewise.
        student: whose tokens the batch has, if they are to be compared.

    Raises:
        ValueError: where the teacher is in training mode, and what `features_of` raises.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from kdlosses.integrations.distillation_step import teacher_features
        >>> class TinyCLIP(nn.Module):
        ...     def forward(self, image, text):
        ...         return image, text, torch.tensor(100.0)
        >>> batch = torch.eye(4), torch.eye(4)
        >>> list(teacher_features(TinyCLIP().eval(), batch))
        ['dist_image_features', 'dist_text_features', 'dist_logit_scale']
        >>> teacher_features(None, batch)
        {}
    """
    if teacher is None:
        return {}
    if student is not None:
        _warn_of_tokens(teacher, batch, student)
    if teacher.training:
        raise ValueError(
            f"the teacher, a {type(bare_model(teacher)).__name__}, is in training mode, in which dropout and batch "
            "norms change what it gives; call teacher.eval() once before training"
        )
    with torch.no_grad():
        features = features_of(teacher, teacher_batch(batch))
    return {f"dist_{name}": value for name, value in features.items()}


def _warn_of_tokens(teacher: nn.Module, batch: Batch, student: nn.Module) -> None:
    if isinstance(batch, Mapping) and any(
        name.removeprefix(PREFIX) in _TEXT for name in batch if name.startswith(PREFIX)
    ):
        return
    theirs, ours = vocabulary_size(teacher), vocabulary_size(student)
    if None not in (theirs, ours) and theirs != ours:
        warnings.warn(
            f"the teacher, with a vocabulary of {theirs} tokens, reads those made for the student's {ours}, which mean "
            "other words to it unless one tokenizer made both; have the batch hold the teacher's: teacher_input_ids",
            stacklevel=4,
        )


def frozen(teacher: nn.Module, student: nn.Module) -> nn.Module:
    """``teacher`` in ``eval()``, its parameters without gradients.

    Args:
        teacher: the model to freeze, in place.
        student: must not share trainable parameters with it.

    Raises:
        ValueError: where it is not one model, or where freezing it would freeze a part of the student.

    Example:
        >>> from torch import nn
        >>> from kdlosses.integrations.distillation_step import frozen
        >>> teacher = frozen(nn.Linear(4, 4), student=nn.Linear(4, 4))
        >>> teacher.training, any(p.requires_grad for p in teacher.parameters())
        (False, False)
    """
    if not isinstance(teacher, nn.Module):
        raise ValueError(
            f"teacher must be one model, got {type(teacher).__name__}; for several teachers call MultiTeacherLoss with "
            "the outputs of each"
        )
    trained = {id(p) for p in student.parameters() if p.requires_grad}
    if not trained.isdisjoint(map(id, teacher.parameters())):
        raise ValueError(
            "teacher and student have trainable parameters in common, which freezing the teacher would freeze for "
            "both; give a copy of it: copy.deepcopy(teacher)"
        )
    return teacher.eval().requires_grad_(False)


def check_unmasked(loss: nn.Module) -> None:
    """Raise ValueError where ``loss`` reads embeddings of masked images, for trainers that make none.

    Args:
        loss: any loss module.

    Example:
        >>> from kdlosses import FDLoss, MFDLoss
        >>> from kdlosses.integrations.distillation_step import check_unmasked
        >>> check_unmasked(FDLoss())
        >>> check_unmasked(MFDLoss())  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: mfd reads the student's embeddings of masked images, ...
    """
    masked = loss.reading("masked") if isinstance(loss, DistillLoss) else ()
    # The released variant's MFD is FD, and wants none.
    if masked and loss.variant == "paper":
        raise ValueError(
            f"{masked[0]} reads the student's embeddings of masked images, which nobody makes here, so it would be fd; "
            "use fd, or a loop of your own with kdlosses.masking"
        )


def teacher_batch(batch: Batch) -> Batch:
    """What of a batch the teacher gets: the entries ``teacher_...`` without that prefix, else the student's.

    With an image of its own the teacher gets none of the student's entries about images, with a text of its own
    (``teacher_input_ids`` or ``teacher_text``) none of those about texts: another tokenizer's attention mask fits
    nothing.

    Args:
        batch: what the student is called with.

    Example:
        >>> from kdlosses.integrations.distillation_step import teacher_batch
        >>> teacher_batch({"pixel_values": 1, "input_ids": 2, "attention_mask": 3, "teacher_input_ids": 4})
        {'pixel_values': 1, 'input_ids': 4}
    """
    if not isinstance(batch, Mapping):
        return batch
    own = {name.removeprefix(PREFIX): value for name, value in batch.items() if name.startswith(PREFIX)}
    replaced = {name in _TEXT for name in own}  # whether of the text, of the image, or of both
    shared: dict[str, Any] = {
        name: value for name, value in batch.items() if not name.startswith(PREFIX) and (name in _TEXT) not in replaced
    }
    return {**shared, **own}
