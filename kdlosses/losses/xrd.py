"""XRD, cross relational distillation (CLIP-RD, arXiv 2603.25383)."""

from __future__ import annotations

from kdlosses.catalog import named
from kdlosses.embeddings import Embeddings
from kdlosses.registry import register
from kdlosses.requests import KL, Request, mean_of_directions
from kdlosses.term import Computation, Term
from kdlosses.term_loss import TermLoss


@named
class XRDLoss(TermLoss):
    """Cross relational distillation (XRD): KL divergence between the two cross-modal student-teacher softmaxes.

    With ``A = c' P(v_S) s_T^T`` (student images to teacher texts) and ``B = c' P(s_S) v_T^T`` (student texts to teacher
    images),

    ``L = 1/4 [ KL(A || B) + KL(B || A) + KL(A^T || B^T) + KL(B^T || A^T) ]``,

    softmax over rows, each KL a mean over the B rows, in nats; the first of each is a constant. Zero where both
    relations agree, be they right or wrong: it is meant beside `ICLLoss`, whose relations, ``c'`` and P it shares in
    `CLIPKDLoss`.

    ``variant="released"`` multiplies by ``cross_logit_scale`` itself: it starts at 2.659 and is not clamped. Of the
    paper we could read the abstract alone, so ``"paper"`` has everything else from the released code.

    Constructor arguments: see `DistillLoss`; different widths need ``student_dim`` and ``teacher_dim``. Call
    arguments and result: see `DistillLoss.forward`.

    Gradient:
        Student features, P and ``cross_logit_scale``; neither the teacher nor ``logit_scale``.

    Source:
        CLIP-RD (arXiv 2603.25383), L_XRD, and its released code.

    Example:
        Zero where each model embeds an image as it embeds its text, even where the models disagree with each other.

        >>> import torch
        >>> from kdlosses import XRDLoss
        >>> _ = torch.manual_seed(0)
        >>> student, teacher = torch.randn(2, 8, 16)
        >>> XRDLoss()(student, student, 14.3, teacher, teacher).item()
        0.0
    """

    name = "xrd"


@register
class XRD(Term):
    """The term of `XRDLoss`, which has its formula."""

    name = "xrd"
    needs = frozenset({"teacher", "aligned", "cross_scale"})

    def compute(self, embeddings: Embeddings) -> Computation:
        """KL of each cross relation to the other, from both sides."""
        requests: list[Request] = []
        i2t, t2i = embeddings.cross_i2t, embeddings.cross_t2i
        for student, target in ((t2i, i2t.constant()), (i2t, t2i.constant())):
            requests += [KL(student, target), KL(student.transposed(), target.transposed())]
        return Computation(requests, mean_of_directions)
