"""The parameters a loss may own, and how they are applied.

They sit at the top level of the module that owns them, under the released code's names, so that its state dicts load.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
    term_state: nn.ModuleDict


def add_layers(
    loss: Layers, needs: frozenset[str], student_dim: int | None, teacher_dim: int | None, projected: frozenset[str]
) -> None:
    """Give ``loss`` the projections, fusion layers and scales that ``needs`` names, and no others.

    `check_dims` has seen to it that both widths are there where one is needed; ``projected`` says which of "image" and
    "text" are read after a projection.
    """
    if "aligned" in needs and student_dim is not None and teacher_dim is not None and student_dim != teacher_dim:
        if "image" in projected:
            loss.visual_proj = nn.Linear(student_dim, teacher_dim)
        if "text" in projected:
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


def learned_scale(parameter: Tensor, variant: str, dtype: torch.dtype) -> Tensor:
    """The 0-d scale that ``parameter`` stands for."""
    parameter = parameter.to(dtype).reshape(())
    # The released code multiplies by the parameter itself: its temperature starts at 2.659, not 14.29.
    return parameter if variant == "released" else parameter.clamp(max=MAX_LOGIT_SCALE).exp()


def linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """``layer`` applied in the dtype of ``x``."""
    if not torch.compiler.is_compiling() and x.is_inference():
        x = x.clone()  # a tower frozen under inference_mode: autograd refuses to save its output as it is
    # Not layer(x): a loss moved to bf16 with its model still computes in the dtype of the computation.
    return F.linear(x, layer.weight.to(x.dtype), layer.bias.to(x.dtype))
