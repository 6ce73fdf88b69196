"""The SigLIP loss (Zhai et al. 2023, arXiv 2303.15343): the task term of models trained with a sigmoid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from kdlosses.backends.contract import Backend
from kdlosses.base import DistillLoss
from kdlosses.catalog import named
from kdlosses.embeddings import Embeddings
from kdlosses.registry import register
from kdlosses.requests import Request, SigmoidCrossEntropy, mean_of_directions
from kdlosses.soft_labels import GroupSigmoidCrossEntropy
from kdlosses.term import Computation, Term

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


@named
class SigLIPLoss(DistillLoss):
    """SigLIP's sigmoid loss of the student alone: binary cross-entropy over all B x B pairs.

    ``L = -1/B sum_ij log sigmoid(y_ij (c v_i . s_j + b))`` with unit rows ``v`` (images), ``s`` (texts),
    ``c = logit_scale``, ``b = logit_bias``, ``y_ij`` 1 where ``i = j`` and -1 elsewhere; a sum over the B texts, a mean
    over the B images, in nats. Identical in both variants.

    Equals ``open_clip.loss.SigLipLoss``, over several processes too. ``logit_bias`` must be given (a SigLIP starts at
    -10); a teacher's arguments are checked and not used.

    Called with ``group_ids``, ``y_ij`` is 1 for all pairs of a group, and each of a row's k such terms weighs 1/k.

    Call arguments and result: see `DistillLoss.forward`.

    Args:
        positive_weight: of each of a row's k positives, where ``group_ids`` make several: ``"mean"`` for 1/k, so that
            groups count alike, or ``"one"``.
        variant: see `DistillLoss`.
        student_dim: see `DistillLoss`.
        teacher_dim: see `DistillLoss`.
        backend: see `DistillLoss`.
        check: see `DistillLoss`.
        group: see `DistillLoss`.
        reduction: see `DistillLoss`.

    Raises:
        ValueError: as `DistillLoss`, and for another ``positive_weight``.

    Gradient:
        Student features, ``logit_scale`` and ``logit_bias``. No parameters.

    Source:
        SigLIP (arXiv 2303.15343), Algorithm 1.

    Example:
        At scale and bias 0 every pair has probability 1/2: ln 2 for each of the B texts.

        >>> import torch
        >>> from kdlosses import SigLIPLoss
        >>> image, text = torch.eye(4), torch.eye(4)
        >>> SigLIPLoss()(image, text, logit_scale=0.0, logit_bias=0.0)
        tensor(2.7726)
    """

    name = "siglip"

    def __init__(
        self,
        *,
        positive_weight: str = "mean",
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
            options={self.name: {"positive_weight": positive_weight}},
            variant=variant,
            student_dim=student_dim,
            teacher_dim=teacher_dim,
            backend=backend,
            check=check,
            group=group,
            reduction=reduction,
        )


@register
class SigLIP(Term):
    """The term of `SigLIPLoss`, which has its formula."""

    name = "siglip"
    needs = frozenset({"scale", "bias"})
    options: ClassVar[Mapping[str, Any]] = {"positive_weight": ("mean", "one")}

    def compute(self, embeddings: Embeddings) -> Computation:
        """Binary cross-entropy with the labels; the sum over all pairs is the same from either side."""
        student = embeddings.student
        assert student.bias is not None, "check_call refuses calls without it"
        request: Request = SigmoidCrossEntropy(student.i2t, student.bias)
        if student.i2t.keys.groups is not None:
            mean = embeddings.options["positive_weight"] == "mean"
            request = GroupSigmoidCrossEntropy(student.i2t, student.bias, mean)
        return Computation([request], mean_of_directions)
