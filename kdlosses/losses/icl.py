"""ICL, interactive contrastive learning (CLIP-KD, arXiv 2307.12732)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from kdlosses.backends.contract import Backend
from kdlosses.base import DistillLoss
from kdlosses.catalog import named
from kdlosses.embeddings import Embeddings
from kdlosses.registry import register
from kdlosses.soft_labels import check_smoothing, labelled
from kdlosses.term import Computation, Term

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


@named
class ICLLoss(DistillLoss):
    """Interactive contrastive learning (ICL): InfoNCE between the student's embeddings and the teacher's.

    Each student embedding finds its match among the teacher's embeddings of the other modality:

    ``L = 1/2 [ CE(c' P(v_S) s_T^T, diag) + CE(c' P(s_S) v_T^T, diag) ]``, each CE a mean over the B rows, in nats.
    ``c' = exp(cross_logit_scale)`` is learnable, starts at 1/0.07 and is clamped to 100 when used (its gradient is zero
    beyond the clamp: call `clamp_scales` after each optimizer step). P is ``visual_proj`` / ``text_proj``, applied
    before normalising, only where the widths differ.

    ``variant="released"`` multiplies by ``cross_logit_scale`` itself: it starts at 2.659 and is not clamped.

    Called with ``group_ids``, a row's positives are all columns of its group, as in `CLIPLoss`.

    Different widths need ``student_dim`` and ``teacher_dim``. Call arguments and result: see `DistillLoss.forward`.

    Args:
        label_smoothing: e, from 0 to below 1: labels of 1 - e on a row's positives and of e spread over all B columns.
        variant: see `DistillLoss`.
        student_dim: see `DistillLoss`.
        teacher_dim: see `DistillLoss`.
        backend: see `DistillLoss`.
        check: see `DistillLoss`.
        group: see `DistillLoss`.
        reduction: see `DistillLoss`.

    Raises:
        ValueError: as `DistillLoss`; and for another ``label_smoothing``.

    Gradient:
        Student features, P and ``cross_logit_scale``; neither the teacher nor ``logit_scale``.

    Source:
        CLIP-KD (arXiv 2307.12732), L_ICL.

    Example:
        With the student as its own teacher it is the CLIP loss at the learnable scale.

        >>> import torch
        >>> from kdlosses import CLIPLoss, ICLLoss
        >>> _ = torch.manual_seed(0)
        >>> student = torch.randn(8, 16), torch.randn(8, 16)
        >>> loss = ICLLoss()
        >>> torch.allclose(loss(*student, 50.0, *student), CLIPLoss()(*student, loss.cross_logit_scale.exp()))
        True
        >>> [name for name, _ in ICLLoss(student_dim=16, teacher_dim=32).named_parameters()]
        ['cross_logit_scale', 'visual_proj.weight', 'visual_proj.bias', 'text_proj.weight', 'text_proj.bias']
    """

    name = "icl"

    def __init__(
        self,
        *,
        label_smoothing: float = 0.0,
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
            options={self.name: {"label_smoothing": label_smoothing}},
            variant=variant,
            student_dim=student_dim,
            teacher_dim=teacher_dim,
            backend=backend,
            check=check,
            group=group,
            reduction=reduction,
        )


@register
class ICL(Term):
    """The term of `ICLLoss`, which has its formula."""

    name = "icl"
    needs = frozenset({"teacher", "aligned", "cross_scale"})
    options: ClassVar[Mapping[str, Any]] = {"label_smoothing": 0.0}

    def compute(self, embeddings: Embeddings) -> Computation:
        """Cross-entropy of student images against teacher texts, and of student texts against teacher images."""
        return labelled((embeddings.cross_i2t, embeddings.cross_t2i), embeddings.options["label_smoothing"])

    def check(self, options: Mapping[str, Any]) -> None:
        """See `Term`."""
        check_smoothing(self.name, options["label_smoothing"])
