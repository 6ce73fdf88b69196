"""AFD, augmented feature distillation (CLIP-KD, arXiv 2307.12732)."""

from __future__ import annotations

from kdlosses.catalog import named
from kdlosses.embeddings import Embeddings
from kdlosses.registry import register
from kdlosses.requests import CrossEntropy, mean_of_directions
from kdlosses.term import Computation, Term
from kdlosses.term_loss import TermLoss


@named
class AFDLoss(TermLoss):
    """Augmented feature distillation (AFD): CLIP loss of embeddings that fuse the student's and the teacher's.

    ``L = 1/2 [ CE(c'' f_v f_s^T, diag) + CE(c'' f_s f_v^T, diag) ]`` with
    ``f_v = norm(visual_fusion_proj [v_S ; v_T])`` and ``f_s = norm(text_fusion_proj [s_S ; s_T])``, linear layers
    Ds + Dt -> Ds with bias on unit rows; each CE is a mean over the B rows, in nats. ``c'' = exp(fusion_logit_scale)``
    is learnable, starts at 1/0.07 and is clamped to 100 when used (its gradient is zero beyond the clamp: call
    `clamp_scales` after each optimizer step).

    ``variant="released"`` multiplies by ``fusion_logit_scale`` itself (2.659 at the start, no clamp) and, as the
    released code has a shape error there, refuses different widths.

    Constructor arguments: see `DistillLoss`; always needs ``student_dim`` and ``teacher_dim``. Call arguments and
    result: see `DistillLoss.forward`.

    Gradient:
        Student features, both layers and ``fusion_logit_scale``; neither the teacher nor ``logit_scale``.

    Source:
        CLIP-KD (arXiv 2307.12732), L_AFD; its weight is not reported, 1 is our start.

    Example:
        >>> import torch
        >>> from kdlosses import AFDLoss
        >>> _ = torch.manual_seed(0)
        >>> student = torch.randn(8, 16), torch.randn(8, 16)
        >>> teacher = torch.randn(8, 32), torch.randn(8, 32)
        >>> loss = AFDLoss(student_dim=16, teacher_dim=32)
        >>> loss(*student, 14.3, *teacher).shape
        torch.Size([])
        >>> loss.visual_fusion_proj
        Linear(in_features=48, out_features=16, bias=True)
    """

    name = "afd"


@register
class AFD(Term):
    """The term of `AFDLoss`, which has its formula."""

    name = "afd"
    needs = frozenset({"teacher", "fusion"})

    def compute(self, embeddings: Embeddings) -> Computation:
        """Cross-entropy of the fused pairs, both directions."""
        return Computation([CrossEntropy(embeddings.fused.i2t), CrossEntropy(embeddings.fused.t2i)], mean_of_directions)
