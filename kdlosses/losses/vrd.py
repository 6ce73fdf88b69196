"""VRD, vertical relational distillation (CLIP-RD, arXiv 2603.25383)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from kdlosses.catalog import named
from kdlosses.embeddings import Embeddings
from kdlosses.registry import register
from kdlosses.requests import KL, CrossEntropy, Request, add_up
from kdlosses.term import Computation, Term
from kdlosses.term_loss import TermLoss


@named
class VRDLoss(TermLoss):
    """Vertical relational distillation (VRD): contrastive within each modality, across models, plus KL between the two.

    With ``I = c_v P(v_S) v_T^T`` and ``T = c_s P(s_S) s_T^T``, student against teacher,

    ``L = 1/2 [ CE(I, diag) + CE(I^T, diag) + CE(T, diag) + CE(T^T, diag) + KL(T || I) + KL(T^T || I^T) ]``,

    softmax over rows, each CE and KL a mean over the B rows, in nats. ``T`` is a constant in the KLs: the texts'
    relations are the targets of the images'. ``c_v`` and ``c_s`` are exp of ``image_logit_scale`` and
    ``text_logit_scale``, learnable, start at 1/0.07 and are clamped to 100 when used. P is ``visual_proj`` /
    ``text_proj``, applied before normalising, only where the widths differ.

    ``variant="released"`` multiplies by the parameters themselves: they start at 2.659 and are not clamped. Of the
    paper we could read the abstract alone, so ``"paper"`` has everything else from the released code, which weighs all
    six parts with one number, 1 in its scripts.

    Constructor arguments: see `DistillLoss`; different widths need ``student_dim`` and ``teacher_dim``. Call
    arguments and result: see `DistillLoss.forward`.

    Gradient:
        Student features, P, ``image_logit_scale`` and ``text_logit_scale``; neither the teacher nor ``logit_scale``.

    Source:
        CLIP-RD (arXiv 2603.25383), L_VRD, and its released code.

    Example:
        Embeddings that are all alike make every softmax uniform: four cross-entropies of ln B, halved, and no KL.

        >>> import torch
        >>> from kdlosses import VRDLoss
        >>> alike = torch.ones(4, 8)
        >>> loss = VRDLoss()
        >>> round(loss(alike, alike, 14.3, alike, alike).item(), 4)  # 2 ln 4
        2.7726
        >>> [name for name, _ in loss.named_parameters()]
        ['image_logit_scale', 'text_logit_scale']
    """

    name = "vrd"


@register
class VRD(Term):
    """The term of `VRDLoss`, which has its formula."""

    name = "vrd"
    needs = frozenset({"teacher", "aligned", "vertical"})

    def compute(self, embeddings: Embeddings) -> Computation:
        """Cross-entropies of both modalities and KL between them, each from both sides."""
        image, text, target = embeddings.vertical_image, embeddings.vertical_text, embeddings.vertical_text.constant()
        requests: list[Request] = [CrossEntropy(side) for side in (image, image.transposed(), text, text.transposed())]
        requests += [KL(image, target), KL(image.transposed(), target.transposed())]
        return Computation(requests, _half_of_all, lambda rows: add_up(rows) / 2)


def _half_of_all(rows: Sequence[Tensor]) -> Tensor:
    return add_up(answer.mean() for answer in rows) / 2
