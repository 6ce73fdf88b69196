"""Affine maps with their parameters: drawn when the teacher sees an image, repeated for the student."""

from __future__ import annotations

from torch import Generator, Tensor
from torch.nn import functional as F

from harness.config import AugmentConfig
from harness.data.augment import BatchAugment


def draw_maps(count: int, config: AugmentConfig, seed: int) -> Tensor:
    """Draw affine maps as BatchAugment does, float32 [count, 2, 3]."""
    return BatchAugment(config)._maps(count, Generator().manual_seed(seed))


def apply_maps(images: Tensor, maps: Tensor | None) -> Tensor:
    """Turn uint8 images into floats in [0, 1] and map them as BatchAugment does, but with these maps.

    Args:
        images: uint8 [B, 3, S, S].
        maps: float32 [B, 2, 3] from view to image coordinates in [-1, 1]; None changes no pixel.

    Returns:
        Float32 [B, 3, S, S].
    """
    floats = images.float() / 255
    if maps is None:
        return floats
    grid = F.affine_grid(maps.to(images.device, non_blocking=True), list(images.shape), align_corners=False)
    return F.grid_sample(floats, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
