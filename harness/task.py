"""Student, frozen teacher and loss as one step: a batch in, named losses out."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Generator, Tensor, nn

from harness.config import LossConfig
from harness.data import Batch, prepare
from harness.errors import UserError
from harness.models import LoadedModel, freeze
from kdlosses import CLIPKDLoss
from kdlosses.backends import create
from kdlosses.masking import mask_pixels, supports_token_dropping, token_dropping

# Side of a hidden pixel patch for students whose image tower has no patches of its own.
DEFAULT_PATCH = 16


class DistillTask(nn.Module):
    """One training step's mathematics.

    Args:
        student: the model that is trained.
        teacher: the model it learns from, or None.
        config: the recipe's ``loss`` section.
        autocast: dtype of the models' autocast, or None for float32. The losses compute in float32 either way.
    """

    def __init__(
        self, student: LoadedModel, teacher: LoadedModel | None, config: LossConfig, autocast: torch.dtype | None = None
    ) -> None:
        super().__init__()
        self.student = student.model
        self.loss = build_loss(config, student, teacher)
        # A teacher whose every term has weight 0 is not run.
        self.teacher = freeze(teacher.model) if teacher and set(self.loss.weights) != {"contrastive"} else None
        self.config, self.autocast = config, autocast
        self._student_view = (student.image_size, student.mean, student.std)
        self._teacher_view = (teacher.image_size, teacher.mean, teacher.std) if teacher else None
        self._masks = "mfd" in self.loss.weights and config.variant == "paper"
        if self._masks:
            self._try_masking(student)

    def train(self, mode: bool = True) -> DistillTask:
        """Switch the student's mode; the teacher stays in eval."""
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        return self

    def trainable(self) -> list[tuple[str, nn.Parameter]]:
        """The parameters to optimize, by name; the loss's own begin with ``loss.``."""
        return [(name, p) for name, p in self.named_parameters() if p.requires_grad]

    def forward(self, view: Tensor, batch: Batch, generator: Generator) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The weighted losses, whose sum is minimised, and scalars worth logging.

        Args:
            view: ``[B, 3, S, S]`` images in 0..1, the one view that student and teacher share.
            batch: its token ids; where the view lives.
            generator: source of MFD's masks.
        """
        device = view.device
        image = prepare(view, *self._student_view)
        with self._precision(device):
            outputs = self.student(image, batch.tokens["student"].to(device))
            extra = {"masked_image_features": self._masked(image, generator)} if self._masks else {}
        if self.teacher is not None:
            extra.update(self._teach(view, image, batch))
        losses = self.loss(**outputs, **extra, output_dict=True)
        return losses, {"logit_scale": outputs["logit_scale"].detach()}

    @torch.no_grad()
    def _teach(self, view: Tensor, image: Tensor, batch: Batch) -> dict[str, Tensor]:
        if self._teacher_view != self._student_view:
            image = prepare(view, *self._teacher_view)
        with self._precision(view.device):
            outputs = self.teacher(image, batch.tokens["teacher"].to(view.device))
        return {f"dist_{name}": value for name, value in outputs.items()}

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
                return self.student.encode_image(image, normalize=True)
        patch = getattr(visual, "patch_size", DEFAULT_PATCH)
        patch = patch[0] if isinstance(patch, (tuple, list)) else patch
        return self.student.encode_image(mask_pixels(image, ratio, patch, generator), normalize=True)

    def _precision(self, device: torch.device) -> torch.autocast | nullcontext:
        return torch.autocast(device.type, dtype=self.autocast) if self.autocast else nullcontext()


def build_loss(config: LossConfig, student: LoadedModel, teacher: LoadedModel | None) -> CLIPKDLoss:
    """The recipe's loss, sized for its two models."""
    widths = {"student_dim": student.embed_dim, "teacher_dim": teacher.embed_dim} if teacher else {}
    try:
        options = config.backend_options
        backend = create(config.backend, **options) if options else config.backend
        return CLIPKDLoss(dict(config.weights), variant=config.variant, backend=backend, **widths)
    except ValueError as error:
        raise UserError(f"recipe key loss: {error}") from error
