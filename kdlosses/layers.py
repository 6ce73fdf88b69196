"""The parameters a loss may own, and the views made with them.

They sit at the top level of the module that owns them, under the released code's names, so that its state dicts load.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdlosses.inputs import Inputs
from kdlosses.relation import Pairs, Relation
from kdlosses.rows import rows_of
from kdlosses.views import Views

INITIAL_LOGIT_SCALE = math.log(1 / 0.07)
MAX_LOGIT_SCALE = math.log(100)


class Layers(nn.Module):
    """What a loss may own, for one teacher; `add_layers` makes those that its terms read, and no others."""

    visual_proj: nn.Linear
    text_proj: nn.Linear
    cross_logit_scale: nn.Parameter
    image_logit_scale: nn.Parameter
    text_logit_scale: nn.Parameter
    visual_fusion_proj: nn.Linear
    text_fusion_proj: nn.Linear
    fusion_logit_scale: nn.Parameter


def add_layers(loss: Layers, needs: frozenset[str], student_dim: int | None, teacher_dim: int | None) -> None:
    """Give ``loss`` the projections, fusion layers and scales that ``needs`` names, and no others.

    `check_dims` has seen to it that both widths are there where one is needed.
    """
    if "aligned" in needs and student_dim is not None and teacher_dim is not None and student_dim != teacher_dim:
        loss.visual_proj = nn.Linear(student_dim, teacher_dim)
        loss.text_proj = nn.Linear(student_dim, teacher_dim)
    if "cross_scale" in needs:
        loss.cross_logit_scale = nn.Parameter(torch.tensor(INITIAL_LOGIT_SCALE))
    if "vertical" in needs:
        loss.image_logit_scale = nn.Parameter(torch.tensor(INITIAL_LOGIT_SCALE))
        loss.text_logit_scale = nn.Parameter(torch.tensor(INITIAL_LOGIT_SCALE))
    if "fusion" in needs and student_dim is not None and teacher_dim is not None:
        loss.visual_fusion_proj = nn.Linear(student_dim + teacher_dim, student_dim)
        loss.text_fusion_proj = nn.Linear(student_dim + teacher_dim, student_dim)
        loss.fusion_logit_scale = nn.Parameter(torch.tensor(INITIAL_LOGIT_SCALE))


def make_views(
    loss: Layers, needs: frozenset[str], variant: str, inputs: Inputs, student: Pairs | None = None
) -> Views:
    """Project and fuse ``inputs`` once, as far as ``needs`` asks.

    Args:
        loss: the module that has the layers.
        needs: in the words of ``kdlosses.views.NEEDS``.
        variant: ``"paper"`` or ``"released"``.
        inputs: of one teacher.
        student: the student's pairs where another teacher's views have them already.
    """
    dtype = inputs.dtype
    views = Views(
        variant=variant, student=student or _pairs(inputs.image, inputs.text, inputs.scale, dtype, inputs.bias)
    )
    if "teacher" in needs:
        image, text = inputs.teacher_image, inputs.teacher_text
        assert image is not None and text is not None, "check_call refuses calls without them"
        views.teacher = _pairs(image, text, inputs.teacher_scale, dtype, inputs.teacher_bias)
    if "aligned" in needs:
        views.aligned = _aligned(loss, views.student, inputs)
    if "masked" in needs:
        views.masked = _masked(loss, views, inputs)
    if "cross_scale" in needs:
        scale = _learned_scale(loss.cross_logit_scale, variant, dtype)
        views.cross_i2t = Relation(views.aligned.image, views.teacher.text, scale)
        views.cross_t2i = Relation(views.aligned.text, views.teacher.image, scale)
    if "vertical" in needs:
        scales = [_learned_scale(one, variant, dtype) for one in (loss.image_logit_scale, loss.text_logit_scale)]
        views.vertical_image = Relation(views.aligned.image, views.teacher.image, scales[0])
        views.vertical_text = Relation(views.aligned.text, views.teacher.text, scales[1])
    if "fusion" in needs:
        views.fused = _fused(loss, views, dtype)
    return views


def _pairs(image: Tensor, text: Tensor, scale: Tensor | None, dtype: torch.dtype, bias: Tensor | None = None) -> Pairs:
    return Pairs(rows_of(image, dtype), rows_of(text, dtype), scale, bias)


def _aligned(loss: Layers, student: Pairs, inputs: Inputs) -> Pairs:
    if not hasattr(loss, "visual_proj"):
        return student
    image, text = (value.to(inputs.dtype) for value in (inputs.image, inputs.text))
    return _pairs(_linear(loss.visual_proj, image), _linear(loss.text_proj, text), inputs.scale, inputs.dtype)


def _masked(loss: Layers, views: Views, inputs: Inputs) -> Pairs:
    # The released code overwrites the masked embedding by the unmasked one, so there MFD is FD.
    if inputs.masked_image is None or views.variant == "released":
        return views.aligned
    image = inputs.masked_image
    if hasattr(loss, "visual_proj"):
        image = _linear(loss.visual_proj, image.to(inputs.dtype))
    return Pairs(rows_of(image, inputs.dtype), views.aligned.text, None)


def _fused(loss: Layers, views: Views, dtype: torch.dtype) -> Pairs:
    student, teacher = views.student, views.teacher
    images = torch.cat([student.image.normalized(), teacher.image.normalized()], dim=1)
    texts = torch.cat([student.text.normalized(), teacher.text.normalized()], dim=1)
    scale = _learned_scale(loss.fusion_logit_scale, views.variant, dtype)
    return _pairs(_linear(loss.visual_fusion_proj, images), _linear(loss.text_fusion_proj, texts), scale, dtype)


def _learned_scale(parameter: Tensor, variant: str, dtype: torch.dtype) -> Tensor:
    parameter = parameter.to(dtype).reshape(())
    # The released code multiplies by the parameter itself: its temperature starts at 2.659, not 14.29.
    return parameter if variant == "released" else parameter.clamp(max=MAX_LOGIT_SCALE).exp()


def _linear(layer: nn.Linear, x: Tensor) -> Tensor:
    if not torch.compiler.is_compiling() and x.is_inference():
        x = x.clone()  # a tower frozen under inference_mode: autograd refuses to save its output as it is
    # Not layer(x): a loss moved to bf16 with its model still computes in the dtype of the computation.
    return F.linear(x, layer.weight.to(x.dtype), layer.bias.to(x.dtype))
