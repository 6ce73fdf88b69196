"""timm towers whose last width open_clip does not see: MobileNetV3's head convolution comes after the pooling.

open_clip sizes a projection by the trunk's ``num_features``, 576 for MobileNetV3-small, but the trunk gives what its
head convolution makes of them, 1024. Where ``timm_proj`` is empty open_clip leaves the projection to timm, which sizes
its classifier right; so stock open_clip builds, runs and loads the model. That classifier has a bias, which the paper's
projection lacks: it starts at 0 and is kept there.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

_TRUNK = "mobilenetv3_small_100"


@torch.no_grad()
def settle(model: nn.Module, config: dict[str, Any], *, fresh: bool) -> None:
    """Make timm's classifier a projection like any other of open_clip's, in the one model that needs it.

    Args:
        model: as open_clip made it.
        config: its open_clip model config.
        fresh: whether its weights are random; the projection's are then drawn again, as open_clip draws them.
    """
    vision = config["vision_cfg"]
    if vision.get("timm_model_name") != _TRUNK or vision.get("timm_proj"):
        return
    tower: Any = model.visual
    projection: nn.Linear = tower.trunk.classifier
    if fresh:
        projection.reset_parameters()
        projection.bias.zero_()
    if not projection.bias.any():
        projection.bias.requires_grad_(False)


def hint(model: nn.Module) -> str:
    """What to change in a config whose projection does not fit its timm trunk; empty where it fits."""
    visual = getattr(model, "visual", None)
    projection = getattr(getattr(visual, "head", None), "proj", None)
    width = getattr(getattr(visual, "trunk", None), "head_hidden_size", None)
    if width is None or not isinstance(projection, nn.Linear) or projection.in_features == width:
        return ""
    return (
        f"open_clip sizes this tower's projection for {projection.in_features} channels, but timm's gives {width}: set "
        "vision_cfg.timm_pool to avg and vision_cfg.timm_proj to '', so that timm projects"
    )
