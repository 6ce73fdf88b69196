"""Model in the place of a teacher whose embeddings come from a cache."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class CachedOutputs(nn.Module):
    """Called with cached embeddings instead of images and tokens, it returns what the teacher would.

    Args:
        scalars: the teacher's outputs that are the same for every batch, such as ``logit_scale`` (exponentiated).
    """

    def __init__(self, scalars: Mapping[str, float]) -> None:
        super().__init__()
        self.visual = nn.Identity()  # where a model's image tower is looked for and counted
        self._names = tuple(scalars)
        for name, value in scalars.items():
            # Not persistent: the cache knows them, a checkpoint need not.
            self.register_buffer(name, torch.tensor(value, dtype=torch.float32), persistent=False)

    def forward(self, image_features: Tensor, text_features: Tensor) -> dict[str, Tensor]:
        """Return the teacher's outputs.

        Args:
            image_features: float16 [B, D], a batch's ``cached.image_features`` on this module's device.
            text_features: likewise.

        Returns:
            Both as float32, and the scalars.
        """
        scalars = {name: getattr(self, name) for name in self._names}
        return {"image_features": image_features.float(), "text_features": text_features.float(), **scalars}
