"""A loss that is computed by a forward hook, within the forward of the student that it is attached to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from kdlosses.integrations.attach import NAME, attach_loss, detach_loss
from kdlosses.integrations.model_adapters import named_features


class LossForwardHook:
    """Forward hook: while a teacher's features are at hand, a student gives the terms of its ``kd_loss`` instead.

    With the terms come the student's features, without gradient: what DDP finds in an output and no loss reads, such
    as the logits of a SigLIP student without a sigmoid term, would keep it waiting for gradients.
    """

    teacher: dict[str, Tensor] | None = None  # {} for a loss that reads none

    def __call__(self, student: nn.Module, arguments: Any, output: Any) -> dict[str, dict[str, Tensor]] | None:
        if self.teacher is None:
            return None
        features = named_features(student, output)
        terms: dict[str, Tensor] = student.get_submodule(NAME)(**features, **self.teacher, output_dict=True)
        return {"terms": terms, "features": {name: value.detach() for name, value in features.items()}}


class AttachedLoss:
    """A loss as a part of a student, computed within its forward; at most one at a time.

    Attributes:
        hook: of the student that it is attached to.
    """

    def __init__(self) -> None:
        self.hook = LossForwardHook()
        self._place: tuple[nn.Module, RemovableHandle] | None = None

    def attach(self, student: nn.Module, loss: nn.Module) -> None:
        """Make ``loss`` a part of ``student``."""
        attach_loss(student, loss)
        self._place = student, student.register_forward_hook(self.hook)

    def detach(self) -> bool:
        """Whether there was anything to detach."""
        return self._take() is not None

    @contextmanager
    def attached(self, student: nn.Module, loss: nn.Module) -> Iterator[None]:
        """The loss in the student; it may be there already."""
        began = self._place is None
        if began:
            self.attach(student, loss)
        try:
            yield
        finally:
            if began:
                self.detach()

    @contextmanager
    def detached(self) -> Iterator[None]:
        """The student alone, for files."""
        taken = self._take()
        try:
            yield
        finally:
            if taken is not None:
                self.attach(*taken)

    def _take(self) -> tuple[nn.Module, nn.Module] | None:
        """Student and loss that are attached no longer."""
        if self._place is None:
            return None
        (student, handle), self._place = self._place, None
        handle.remove()
        return student, detach_loss(student)
