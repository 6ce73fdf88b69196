"""`TermLoss`, the base of the losses that are named after one term."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdlosses.backends.contract import Backend
from kdlosses.base import DistillLoss

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


class TermLoss(DistillLoss):
    """One term by itself: the base of the losses that are named after one.

    Constructor arguments: see `DistillLoss`.
    """

    def __init__(
        self,
        *,
        variant: str = "paper",
        student_dim: int | None = None,
        teacher_dim: int | None = None,
        backend: str | Backend = "auto",
        check: bool = False,
        group: str | ProcessGroup | None = "auto",
        reduction: str = "mean",
    ) -> None:
        super().__init__(
            {self.name: 1.0},
            variant=variant,
            student_dim=student_dim,
            teacher_dim=teacher_dim,
            backend=backend,
            check=check,
            group=group,
            reduction=reduction,
        )
