"""Random affine maps for a whole batch, on the device that it is on."""

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from harness.config import AugmentConfig


class BatchAugment:
    """Turn uint8 images into floats in [0, 1], each scaled, rotated and shifted at random.

    Args:
        config: the ranges of the map; None changes no pixel.
    """

    def __init__(self, config: AugmentConfig | None) -> None:
        self.config = config

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        """Return float32 [B, 3, S, S] for uint8 [B, 3, S, S]; the generator, on any device, decides on the maps."""
        floats = images.float() / 255
        if self.config is None:
            return floats
        maps = self._maps(len(images), generator).to(images.device)
        grid = F.affine_grid(maps, list(images.shape), align_corners=False)
        # Reflection continues a photo's texture at the edge; zeros would draw a black frame.
        return F.grid_sample(floats, grid, mode="bilinear", padding_mode="reflection", align_corners=False)

    def _maps(self, count: int, generator: Generator) -> Tensor:
        """Draw one map an image, float32 [B, 2, 3], from view to image coordinates in [-1, 1]."""
        assert self.config is not None
        draws = torch.rand(4, count, generator=generator, device=generator.device)
        low, high = self.config.scale
        scale = low + (high - low) * draws[0]
        angle = self.config.rotate * (2 * draws[1] - 1)
        # An image is 2 wide in these coordinates.
        shift = 2 * self.config.shift * (2 * draws[2:] - 1)
        cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
        return torch.stack([torch.stack([cos, -sin, shift[0]], 1), torch.stack([sin, cos, shift[1]], 1)], 1)


def prepare(images: Tensor, size: int, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Make a model's input: resize to its size if that differs, then normalize.

    Args:
        images: float [B, 3, S, S] in [0, 1].
        size: the model's input side in pixels.
        mean: the model's mean of each channel.
        std: the model's standard deviation of each channel.

    Returns:
        Float [B, 3, size, size].
    """
    if images.shape[-1] != size:
        # Bicubic overshoots at edges; an 8-bit image, as a model is evaluated on, cannot.
        images = F.interpolate(images, (size, size), mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
    shape = (1, -1, 1, 1)
    return (images - images.new_tensor(mean).view(shape)) / images.new_tensor(std).view(shape)
