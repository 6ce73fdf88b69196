"""The CLIP loss (Radford et al. 2021): the task term of every recipe and the paper's baseline on its own."""

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
class CLIPLoss(DistillLoss):
    """CLIP's contrastive loss of the student alone: symmetric InfoNCE over the batch.

    Pulls each image to its own text among the batch's texts, and each text to its own image:

    ``L = 1/2 [ CE(c v s^T, diag) + CE(c s v^T, diag) ]`` with unit rows ``v`` (images), ``s`` (texts) and
    ``c = logit_scale``; each CE is a mean over the B rows, in nats. Identical in both variants.

    Drops in for ``open_clip.ClipLoss``, called by keyword or with three arguments; a teacher's arguments are checked
    and not used.

    Called with ``group_ids``, a row's positives are all columns of its group, of k each with the label 1/k: the mean of
    their cross-entropies (SupCon's "out" form). Ids that are all different change no bit.

    Call arguments and result: see `DistillLoss.forward`.

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
        ValueError: as `DistillLoss`, and for another ``label_smoothing``.

    Gradient:
        Student features and ``logit_scale``. No parameters.

    Source:
        CLIP (arXiv 2103.00020); the task loss of CLIP-KD (arXiv 2307.12732).

    Example:
        At scale 0 every text is equally likely, so the loss is ln B; a larger scale makes matching pairs stand out.

        >>> import torch
        >>> from kdlosses import CLIPLoss
        >>> image, text = torch.eye(4), torch.eye(4)  # four pairs, unlike each other
        >>> CLIPLoss()(image, text, logit_scale=0.0)
        tensor(1.3863)
        >>> CLIPLoss()(image, text, logit_scale=10.0)
        tensor(0.0001)
    """

    name = "contrastive"

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
class CLIP(Term):
    """The term of `CLIPLoss`, which has its formula."""

    name = "contrastive"
    needs = frozenset({"scale"})
    options: ClassVar[Mapping[str, Any]] = {"label_smoothing": 0.0}

    def compute(self, embeddings: Embeddings) -> Computation:
        """Cross-entropy of both directions."""
        student = embeddings.student
        return labelled((student.i2t, student.t2i), embeddings.options["label_smoothing"])

    def check(self, options: Mapping[str, Any]) -> None:
        """See `Term`."""
        check_smoothing(self.name, options["label_smoothing"])
