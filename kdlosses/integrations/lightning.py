"""Distillation in Lightning: a module for student, teacher and loss, and a callback for modules of your own.

Lightning runs ``training_step`` within DDP and asks the module for its parameters, so a loss that is a submodule is
trained, synchronised, clipped and saved like the student: ``self.loss = loss`` is the whole integration. What is left
to do is to keep the teacher out of all that, and to notice an optimizer that leaves the loss out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from kdlosses.base import DistillLoss
from kdlosses.integrations.distillation_step import check_unmasked, frozen, teacher_features
from kdlosses.integrations.model_adapters import Batch, features_of
from kdlosses.integrations.wrappers import owner_of_scale
from kdlosses.parameters import parameter_report
from kdlosses.requests import add_up

try:
    import lightning.pytorch as pl
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        "kdlosses.integrations.lightning needs the package lightning; install it with "
        "pip install '.[lightning]' in a checkout of kdlosses"
    ) from missing

if TYPE_CHECKING:
    from typing_extensions import Self

# Gets parameter groups, returns what configure_optimizers may: an optimizer, or a dict with a scheduler as well.
MakeOptimizer = Callable[[list[dict[str, Any]]], Any]
ADAMW: MakeOptimizer = partial(torch.optim.AdamW, lr=1e-3, weight_decay=0.1)


class CLIPDistillation(pl.LightningModule):
    """LightningModule of a student that learns from batches of pairs and from a teacher.

    The total is the sum of the loss's weighted terms, over the rows of all processes. Batches are pairs (images, texts)
    or mappings, see `features_of`; logged are ``train/loss``, ``train/<term>_loss``, and the same for ``val``. After a
    step the student's ``logit_scale`` is brought back to within 0 and ln 100, as CLIP's own training does.

    Args:
        student: an open_clip or transformers model, or one that returns what theirs do.
        teacher: likewise; put into eval mode and frozen. It follows the module to its device and dtype, and is in no
            optimizer, DDP or checkpoint. Entries of a batch whose names begin with ``teacher_`` are for it. None for a
            loss that reads no teacher.
        loss: a `DistillLoss`; its parameters are trained and saved with the student's.
        optimizer: called with two parameter groups, the second (scales, biases, norms and all that the loss has)
            without weight decay; returns what ``configure_optimizers`` may, so also a dict with a scheduler.

    Raises:
        ValueError: where the teacher is not a model or shares trainable parameters with the student, and for MFD,
            unless a subclass's ``forward`` gives ``masked_image_features``.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from kdlosses import ICLLoss
        >>> from kdlosses.integrations.lightning import CLIPDistillation
        >>> class TinyCLIP(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.image, self.text = nn.Linear(8, 4), nn.Linear(8, 4)
        ...     def forward(self, image, text):
        ...         return self.image(image), self.text(text), torch.tensor(100.0)
        >>> module = CLIPDistillation(student=TinyCLIP(), teacher=TinyCLIP(), loss=ICLLoss())
        >>> sorted({name.split(".")[0] for name, _ in module.named_parameters()})  # the teacher is not among them
        ['loss', 'student']
        >>> list(module.teacher_outputs((torch.randn(2, 8), torch.randn(2, 8))))
        ['dist_image_features', 'dist_text_features', 'dist_logit_scale']
    """

    def __init__(
        self, student: nn.Module, teacher: nn.Module | None, loss: DistillLoss, optimizer: MakeOptimizer = ADAMW
    ) -> None:
        super().__init__()
        if type(self).forward is CLIPDistillation.forward:  # another may give masked_image_features
            check_unmasked(loss)
        self.student, self.loss = student, loss
        # In a tuple torch does not see it, and so Lightning does not.
        self._hidden = () if teacher is None else (frozen(teacher, student),)
        self._make_optimizer = optimizer

    @property
    def teacher(self) -> nn.Module | None:
        """The frozen teacher."""
        return self._hidden[0] if self._hidden else None

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The student's features and scale, by the names that a loss takes."""
        return features_of(self.student, batch)

    def teacher_outputs(self, batch: Batch) -> dict[str, Any]:
        """The loss's ``dist_`` arguments; override it for cached embeddings or for several teachers."""
        return teacher_features(self.teacher, batch, self.student)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The total of this batch, of all processes."""
        return self._step(batch, "train")

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The same, without training."""
        return self._step(batch, "val")

    def _step(self, batch: Batch, stage: str) -> Tensor:
        student = self(batch)
        losses = self.loss(**student, **self.teacher_outputs(batch), output_dict=True)
        total = add_up(losses.values())
        logged = {f"{stage}/{name}": value.detach() for name, value in (losses | {"loss": total}).items()}
        self.log_dict(logged, batch_size=len(student["image_features"]), sync_dist=stage == "val")
        return total

    def configure_optimizers(self) -> Any:
        """What ``optimizer`` makes of the student's and the loss's parameters."""
        own = set(self.loss.parameters())
        trained = [p for p in self.parameters() if p.requires_grad]
        decayed = [p for p in trained if p.ndim > 1 and p not in own]
        plain = [p for p in trained if p.ndim < 2 or p in own]
        return self._make_optimizer([{"params": decayed}, {"params": plain, "weight_decay": 0.0}])

    def configure_callbacks(self) -> list[pl.Callback]:
        """The check of the optimizers, and the loss's scales within their bounds."""
        return [DistillationCallback()]

    @torch.no_grad()
    def on_train_batch_end(self, *_: Any) -> None:
        """Bring the student's scale back to at most ln 100, and at least 0."""
        scale = getattr(owner_of_scale(self.student), "logit_scale", None)
        if isinstance(scale, nn.Parameter):
            scale.clamp_(0, math.log(100))

    def _apply(self, *args: Any, **kwargs: Any) -> Self:
        # Through here pass .to, .cuda, .half and their like; nothing else tells the teacher where to go.
        for teacher in self._hidden:
            teacher._apply(*args, **kwargs)
        super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]  # torch has no types for it
        return self


class DistillationCallback(pl.Callback):
    """For a LightningModule of your own that has a loss of kdlosses as a submodule.

    At the start of ``fit`` it makes sure that there is one and that the optimizers hold all of its parameters; after
    each step it brings the loss's learnable scales back to at most ln 100.
    """

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at the optimizers, once they are made.

        Raises:
            ValueError: where the module has no loss, or where parameters of it are in no optimizer.
        """
        found = _losses(pl_module)
        if not found:
            raise ValueError(
                f"{type(pl_module).__name__} has no loss of kdlosses among its submodules, so nothing would train, "
                "synchronise or save its parameters; set one in __init__: self.loss = loss"
            )
        for loss in found:
            _check_held(loss, trainer.optimizers, type(pl_module).__name__)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Clamp the scales."""
        for loss in _losses(pl_module):
            loss.clamp_scales()


def _losses(module: nn.Module) -> list[DistillLoss]:
    return [one for one in module.modules() if isinstance(one, DistillLoss)]


def _check_held(loss: DistillLoss, optimizers: Sequence[torch.optim.Optimizer], module: str) -> None:
    missing = set(parameter_report(loss).names)
    for optimizer in optimizers:
        missing &= set(parameter_report(loss, optimizer).missing)
    if missing:
        raise ValueError(
            f"{type(loss).__name__} has parameters of its own that no optimizer of {module} holds, so they would never "
            f"learn: {', '.join(sorted(missing))}; have configure_optimizers pass self.parameters(), or add them: "
            "{'params': self.loss.parameters(), 'weight_decay': 0.0}"
        )
