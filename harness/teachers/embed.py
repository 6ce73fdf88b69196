"""The teacher's forward pass, as training runs it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from harness.config import Recipe
from harness.data import prepare
from harness.errors import UserError
from harness.models import LoadedModel, freeze
from harness.teachers.replay import apply_maps

_AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class Embedder:
    """Embeds views and captions with a teacher.

    Args:
        teacher: the model.
        recipe: for precision and memory layout.
        device: where it runs.
        batch_size: images, or texts, at a time.
    """

    def __init__(self, teacher: LoadedModel, recipe: Recipe, device: torch.device, batch_size: int) -> None:
        self.teacher, self.device, self.batch_size = teacher, device, batch_size
        self.model: Any = freeze(teacher.model).to(device)  # an open_clip model: its towers are methods
        self._autocast = _AUTOCAST[recipe.train.precision]
        self._layout = torch.channels_last if recipe.train.channels_last else torch.contiguous_format
        self.model.to(memory_format=self._layout)

    def images(self, images: Tensor, maps: Tensor | None) -> Tensor:
        """Return the embeddings, float16 [N, D] on the CPU, of views, uint8 [N, 3, S, S], under affine maps."""
        starts = range(0, len(images), self.batch_size)
        return torch.cat([self._images(images, maps, slice(start, start + self.batch_size)) for start in starts])

    def texts(self, tokens: Tensor) -> Tensor:
        """Return the embeddings, float16 [N, D] on the CPU, of captions, int [N, L]."""
        return torch.cat([self._texts(part) for part in tokens.split(self.batch_size)])

    @torch.inference_mode()
    def scalars(self) -> dict[str, float]:
        """Return what the teacher gives beside embeddings, the same for every batch: its scale, and a SigLIP's bias."""
        size = self.teacher.image_size
        outputs = self.model(
            torch.zeros(1, 3, size, size, device=self.device), self.teacher.tokenizer(["a"]).to(self.device)
        )
        rest = {name: value for name, value in outputs.items() if not name.endswith("_features") and value is not None}
        return {name: float(value) for name, value in rest.items() if value.numel() == 1}

    @torch.inference_mode()
    def _images(self, images: Tensor, maps: Tensor | None, part: slice) -> Tensor:
        view = apply_maps(images[part].to(self.device, non_blocking=True), None if maps is None else maps[part])
        view = view.contiguous(memory_format=self._layout)
        view = prepare(view, self.teacher.image_size, self.teacher.mean, self.teacher.std)
        with torch.autocast(self.device.type, dtype=self._autocast, enabled=self._autocast is not None):
            return self._finite(self.model.encode_image(view, normalize=True))

    @torch.inference_mode()
    def _texts(self, tokens: Tensor) -> Tensor:
        with torch.autocast(self.device.type, dtype=self._autocast, enabled=self._autocast is not None):
            return self._finite(self.model.encode_text(tokens.long().to(self.device), normalize=True))

    def _finite(self, features: Tensor) -> Tensor:
        found = features.half().cpu()
        if not found.isfinite().all():
            raise UserError(
                f"teacher {self.teacher.name} gives embeddings that are not finite; try train.precision fp32 or "
                "bf16, or check its weights"
            )
        return found
