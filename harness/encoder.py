"""The student's forward pass as one module, so that DDP and FSDP2 see one call a step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor, nn

from harness.config import LossConfig
from harness.errors import UserError
from harness.models import LoadedModel
from kdlosses.masking import mask_pixels, supports_token_dropping, token_dropping

# Side of a hidden pixel patch for students whose image tower has no patches of its own.
DEFAULT_PATCH = 16


class Encoder(nn.Module):
    """Student encoder, with MFD's masked images where the loss reads them.

    Args:
        student: the model that is trained.
        config: the recipe's ``loss`` section, for MFD's masks.
        autocast: dtype of the forward pass, or None for float32.

    Raises:
        UserError: the student's images cannot be masked as the recipe asks.
    """

    def __init__(self, student: LoadedModel, config: LossConfig, autocast: torch.dtype | None) -> None:
        super().__init__()
        # open_clip's models carry no types: what they are called with and return is theirs to say.
        self.student: Any = student.model
        self.config, self.autocast = config, autocast
        self.masks = bool(config.reading("masked")) and config.variant == "paper"
        if self.masks:
            self._try_masking(student)

    def forward(self, image: Tensor, tokens: Tensor, generator: Generator) -> dict[str, Tensor]:
        """The student's outputs; with MFD also ``masked_image_features``.

        Args:
            image: ``[B, 3, S, S]``, normalised.
            tokens: ``[B, L]``.
            generator: source of the masks.
        """
        with torch.autocast(image.device.type, dtype=self.autocast, enabled=self.autocast is not None):
            outputs = self.student(image, tokens)
            extra = {"masked_image_features": self._masked(image, generator)} if self.masks else {}
        return {**outputs, **extra}

    @torch.no_grad()
    def _try_masking(self, student: LoadedModel) -> None:
        """Mask one image now, so that what cannot be masked is said before any data is touched."""
        if self.config.mask_kind == "tokens" and not supports_token_dropping(self.student.visual):
            raise UserError(
                f"loss.mask_kind is tokens, but the image tower of student {student.name} has no patch tokens to drop; "
                "set loss.mask_kind to pixels"
            )
        training = self.student.training
        try:
            self.student.eval()
            self._masked(torch.zeros(1, 3, student.image_size, student.image_size), Generator())
        except ValueError as error:
            raise UserError(f"recipe keys loss.mask_ratio and loss.mask_kind: {error}") from error
        finally:
            self.student.train(training)

    def _masked(self, image: Tensor, generator: Generator) -> Tensor:
        visual, ratio = self.student.visual, self.config.mask_ratio
        if self.config.mask_kind == "tokens":
            with token_dropping(visual, ratio, generator):
                masked: Tensor = self.student.encode_image(image, normalize=True)
                return masked
        patch = getattr(visual, "patch_size", DEFAULT_PATCH)
        patch = patch[0] if isinstance(patch, (tuple, list)) else patch
        masked = self.student.encode_image(mask_pixels(image, ratio, patch, generator), normalize=True)
        return masked
