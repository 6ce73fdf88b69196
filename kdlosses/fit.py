"""Whether a loss fits its models: the widths it was built for, and the arguments its terms read."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sized

import torch
from torch import Tensor

from kdlosses.inputs import Inputs

_MFD_UNMASKED = (
    "mfd is combined with other terms and masked_image_features is missing, so mfd reads image_features: unless those "
    "come from masked images, this is FD. Pass masked_image_features (see kdlosses.masking)."
)


def check_dims(
    loss: str, needs: frozenset[str], variant: str, student_dim: int | None, teacher_dim: int | None
) -> None:
    """Raise ValueError, naming both widths, unless the layers that ``needs`` names can be built."""
    dims = f"student_dim={student_dim}, teacher_dim={teacher_dim}"
    missing = [student_dim, teacher_dim].count(None)
    if "fusion" in needs and missing:
        raise ValueError(f"{loss} fuses both embeddings and needs both widths, got {dims}")
    if "aligned" in needs and missing == 1:
        raise ValueError(f"{loss} needs both widths or neither, got {dims}")
    if "fusion" in needs and variant == "released" and student_dim != teacher_dim:
        raise ValueError(
            f'variant="released" cannot run afd with {dims}: the released layer has the wrong shape there; '
            'use equal widths or variant="paper"'
        )


def check_call(
    name: str, needs: frozenset[str], inputs: Inputs, student_dim: int | None, teacher_dim: int | None
) -> None:
    """Raise ValueError unless the teacher's outputs that ``needs`` names are there and all widths fit.

    Args:
        name: of the loss, for messages.
        needs: what its terms read.
        inputs: of the call.
        student_dim, teacher_dim: what it was built for, None where it fits any width.
    """
    _check_teacher(name, needs, inputs)
    _check_bias(name, needs, inputs)
    if "bank_targets" in needs and inputs.bank_targets is None:
        raise ValueError(
            f"{name} compares with keys of a bank by number and needs bank_targets, which is missing; pass the numbers "
            "of each row's keys, a [B] or [B, P] tensor of integers"
        )
    student = inputs.image.shape[1]
    teacher = None if inputs.teacher_image is None else inputs.teacher_image.shape[1]
    called = f"student width {student}" + ("" if teacher is None else f" and teacher width {teacher}")
    wrong_teacher = teacher is not None and teacher_dim not in (None, teacher)
    if student_dim not in (None, student) or wrong_teacher:
        raise ValueError(
            f"{name} was built with student_dim={student_dim}, teacher_dim={teacher_dim} but was called with {called}"
        )
    if "aligned" in needs and student_dim is None and student != teacher:
        raise ValueError(
            f"{name} was called with {called}, which differ, so it needs a projection: "
            f"construct it with student_dim={student}, teacher_dim={teacher}"
        )


def check_device(
    loss: str, parameters: Iterable[tuple[str, Tensor]], inputs: Inputs, buffers: Iterable[tuple[str, Tensor]] = ()
) -> None:
    """Raise ValueError unless a loss's own parameters and buffers are where its inputs are."""
    # A scale without dimensions would go through on a CPU, until a kernel is given its address.
    owned = [("parameter", *one) for one in parameters] + [("buffer", *one) for one in buffers]
    for kind, name, parameter in owned:
        if parameter.device != inputs.image.device:
            raise ValueError(
                f"{loss}'s {kind} {name} is on {parameter.device} but image_features is on "
                f"{inputs.image.device}; move the loss with the student: loss.to({str(inputs.image.device)!r})"
            )


def _check_teacher(name: str, needs: frozenset[str], inputs: Inputs) -> None:
    given = {
        "dist_image_features": inputs.teacher_image,
        "dist_text_features": inputs.teacher_text,
        "dist_logit_scale": inputs.teacher_scale,
    }
    wanted = list(given)[: 3 if "teacher_scale" in needs else 2 if "teacher" in needs else 0]
    missing = [argument for argument in wanted if given[argument] is None]
    if missing:
        raise ValueError(f"{name} needs the teacher's outputs; missing: {', '.join(missing)}")


def _check_bias(name: str, needs: frozenset[str], inputs: Inputs) -> None:
    if "bias" in needs and inputs.bias is None:
        raise ValueError(
            f"{name} takes sigmoids and needs the student's logit_bias, which is missing; pass what the model has "
            "under that name (a SigLIP starts at -10), or 0.0 for none"
        )
    if "teacher_bias" in needs and inputs.teacher_bias is None:
        raise ValueError(
            f"{name} takes sigmoids and needs the teacher's dist_logit_bias, which is missing; pass a SigLIP's "
            "logit_bias. A CLIP trained with a softmax has none and its sigmoid means nothing: pass 0.0 to insist"
        )


def warn_unmasked(terms: Sized, needs: frozenset[str], variant: str, masked_image: Tensor | None) -> None:
    """Warn the caller of a loss that its MFD may be FD; to be called by ``forward`` itself."""
    # Alone, mfd's image_features are the masked image's; beside other terms they are more likely the whole one's.
    alone = masked_image is not None or "masked" not in needs or len(terms) == 1
    if not alone and variant == "paper" and not torch.compiler.is_compiling():
        warnings.warn(_MFD_UNMASKED, stacklevel=5)
