"""CLIP-KD: the weighted sum of terms (CLIP-KD, arXiv 2307.12732)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from kdlosses.backends.contract import Backend
from kdlosses.base import DistillLoss
from kdlosses.catalog import named
from kdlosses.entries import Terms
from kdlosses.options import Options
from kdlosses.weights import CLIP_KD

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


@named
class CLIPKDLoss(DistillLoss):
    """CLIP-KD: the weighted sum of any loss terms, computed together.

    ``L = sum_t weights[t] * L_t``; by default the paper's CLIP-KD, ``L_CLIP + L_CRD + 2000 L_FD + L_ICL``. The terms
    share embeddings, projections, learnable scales and relations. A term of weight zero costs and owns nothing.

    Call arguments and result: see `DistillLoss.forward`; ``output_dict=True`` returns the weighted terms.

    Args:
        weights: ``{term: weight}``, terms from ``kdlosses.available_terms()``, weights >= 0, at least one above zero.
            They belong to the variant: `kdlosses.default_weights`.
        options: ``{term: {option: value}}``, what the terms' own classes take as keywords, as in
            ``{"affinity": {"teacher_scale": 100.0}}``.
        terms: ``{name: {"loss": term, option: value, ...}}``, names of your own for terms with options, as in
            ``CLIPKDLoss({"soft": 1.0}, terms={"soft": {"loss": "affinity", "teacher_scale": 50.0}})``: one term may be
            in a sum several times, and ``output_dict`` has ``soft_loss``.
        variant: see `DistillLoss`.
        student_dim: see `DistillLoss`.
        teacher_dim: see `DistillLoss`.
        backend: see `DistillLoss`.
        check: see `DistillLoss`.
        group: see `DistillLoss`.
        reduction: see `DistillLoss`.

    Raises:
        ValueError: for an unknown term, a bad weight or option, no term at all, or the released GD weight with the
            paper's GD.

    Gradient:
        The union of its terms'; the teacher receives none.

    Source:
        CLIP-KD (arXiv 2307.12732), the overall objective.

    Example:
        >>> import torch
        >>> from kdlosses import CLIPKDLoss
        >>> _ = torch.manual_seed(0)
        >>> student = torch.randn(8, 16), torch.randn(8, 16)
        >>> teacher = torch.randn(8, 32), torch.randn(8, 32)
        >>> loss = CLIPKDLoss({"contrastive": 1.0, "crd": 1.0, "icl": 1.0}, student_dim=16, teacher_dim=32)
        >>> terms = loss(*student, 14.3, *teacher, 100.0, output_dict=True)
        >>> list(terms)
        ['contrastive_loss', 'crd_loss', 'icl_loss']
        >>> torch.equal(sum(terms.values()), loss(*student, 14.3, *teacher, 100.0))
        True
    """

    name = "clip_kd"

    def __init__(
        self,
        weights: Mapping[str, float] | None = None,
        *,
        options: Options | None = None,
        terms: Terms | None = None,
        variant: str = "paper",
        student_dim: int | None = None,
        teacher_dim: int | None = None,
        backend: str | Backend = "auto",
        check: bool = False,
        group: str | ProcessGroup | None = "auto",
        reduction: str = "mean",
    ) -> None:
        super().__init__(
            CLIP_KD if weights is None else weights,
            options=options,
            terms=terms,
            variant=variant,
            student_dim=student_dim,
            teacher_dim=teacher_dim,
            backend=backend,
            check=check,
            group=group,
            reduction=reduction,
        )
