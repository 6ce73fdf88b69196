"""MFD, masked feature distillation (CLIP-KD, arXiv 2307.12732)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from kdlosses.catalog import named
from kdlosses.embeddings import Embeddings
from kdlosses.losses.fd import feature_distance
from kdlosses.registry import register
from kdlosses.term import Computation, Term
from kdlosses.term_loss import TermLoss


@named
class MFDLoss(TermLoss):
    """Masked feature distillation (MFD): FD with the student's embedding of a masked image.

    ``L = mse(P(v_S'), v_T) + mse(P(s_S), s_T)`` with ``v_S'`` the student's embedding of the masked image (the paper
    hides 75 % of the patches; see `kdlosses.masking`) and ``v_T`` the teacher's of the whole one; otherwise
    `FDLoss`.

    ``v_S'`` is ``masked_image_features``, or ``image_features`` where that is not given. The released code overwrites
    its masked embedding by the unmasked one, so with ``variant="released"`` this is FD of ``image_features``.

    Constructor arguments: see `DistillLoss`; different widths need ``student_dim`` and ``teacher_dim``. Call
    arguments and result: see `DistillLoss.forward`.

    Gradient:
        Student features (masked ones where given) and P; the teacher receives none.

    Source:
        CLIP-KD (arXiv 2307.12732), L_MFD, weight 2000.

    Example:
        >>> import torch
        >>> from kdlosses import FDLoss, MFDLoss
        >>> _ = torch.manual_seed(0)
        >>> whole, masked, text = torch.randn(3, 8, 16)
        >>> teacher = torch.randn(8, 16), torch.randn(8, 16)
        >>> loss = MFDLoss()(whole, text, 14.3, *teacher, masked_image_features=masked)
        >>> torch.equal(loss, FDLoss()(masked, text, 14.3, *teacher))
        True
    """

    name = "mfd"


@register
class MFD(Term):
    """The term of `MFDLoss`, which has its formula."""

    name = "mfd"
    needs = frozenset({"teacher", "aligned", "masked"})
    default_weight: ClassVar[Mapping[str, float]] = {"paper": 2000.0, "released": 2000.0}

    def compute(self, embeddings: Embeddings) -> Computation:
        """Distances of masked images and of texts."""
        return feature_distance(embeddings.masked, embeddings.teacher)
