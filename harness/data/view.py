"""The one view of an image that student and teacher share.

torchvision takes seconds to import, and whoever only reads data needs none of it: making a `View` imports it.
"""

import math
from typing import Literal

import torch
from torch import Tensor

Box = tuple[int, int, int, int]  # top, left, height, width in pixels of the decoded image


class View:
    """Cut and resize an image.

    Args:
        size: side S of the view in pixels.
        crop: "random_resized" for a random crop, resized; "resize" for the whole image, resized.
        scale: area of the random crop as a fraction of the image, (low, high).
    """

    def __init__(self, size: int, crop: Literal["random_resized", "resize"], scale: tuple[float, float]) -> None:
        from torchvision.transforms import v2

        self.size = size
        self.random = crop == "random_resized"
        self._crop = v2.RandomResizedCrop(size, scale=scale)
        # A crop of the smallest area still has about S pixels a side.
        self._kept_side = math.ceil(size / math.sqrt(scale[0]))

    def __call__(self, image: Tensor, seed: int) -> Tensor:
        """Return the view, uint8 [3, S, S], of an image, uint8 [3, H, W]; the seed alone decides on the crop."""
        return self.cut(image, self.box(image, seed))

    def box(self, image: Tensor, seed: int) -> Box | None:
        """Draw the crop of an image, uint8 [3, H, W]; None stands for the whole image."""
        if not self.random:
            return None
        with torch.random.fork_rng(devices=()):
            # torch.manual_seed would reseed CUDA's generators too, which the fork does not restore.
            torch.default_generator.manual_seed(seed)
            drawn = self._crop.make_params([image])
        return drawn["top"], drawn["left"], drawn["height"], drawn["width"]

    def cut(self, image: Tensor, box: Box | None) -> Tensor:
        """Return a part of an image, uint8 [3, H, W], resized to uint8 [3, S, S]."""
        if box is None:
            return self._resize(image, [self.size, self.size])
        from torchvision.transforms.v2 import InterpolationMode, functional

        bicubic = InterpolationMode.BICUBIC
        return functional.resized_crop(image, *box, size=[self.size] * 2, interpolation=bicubic, antialias=True)

    def to_keep(self, image: Tensor) -> Tensor:
        """Return the smallest image to keep in memory: the view itself, or enough pixels for any random crop."""
        if not self.random:
            return self(image, 0)
        side = min(image.shape[1:])
        if side <= self._kept_side:
            return image
        return self._resize(image, [round(length * self._kept_side / side) for length in image.shape[1:]])

    @staticmethod
    def _resize(image: Tensor, size: list[int]) -> Tensor:
        from torchvision.transforms.v2 import InterpolationMode, functional

        if list(image.shape[1:]) == size:
            return image
        return functional.resize(image, size, interpolation=InterpolationMode.BICUBIC, antialias=True)
