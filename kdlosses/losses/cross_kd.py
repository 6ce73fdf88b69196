"""Cross-model KD: a term of the released code that its recipes leave at weight zero."""

from __future__ import annotations

from collections.abc import Sequence

from kdlosses.catalog import named
from kdlosses.embeddings import Embeddings
from kdlosses.mixture import divergence_from_mixture
from kdlosses.registry import register
from kdlosses.requests import KL, mean_of_directions
from kdlosses.term import Computation, Term
from kdlosses.term_loss import TermLoss


@named
class CrossKDLoss(TermLoss):
    """Cross-model knowledge distillation: KL divergence from the teacher's softmax to the student-teacher one.

    ``L = 1/2 [ KL(c_T v_T s_T^T || c' P(v_S) s_T^T) + KL(c_T s_T v_T^T || c' P(s_S) v_T^T) ]``, each KL a mean over the
    B rows, in nats. ``c'`` and P are those of `ICLLoss`, and shared with it in `CLIPKDLoss`.

    ``variant="released"`` multiplies by ``cross_logit_scale`` itself: it starts at 2.659 and is not clamped.

    Constructor arguments: see `DistillLoss`; different widths need ``student_dim`` and ``teacher_dim``. Call
    arguments and result: see `DistillLoss.forward`.

    Gradient:
        Student features, P and ``cross_logit_scale``; neither the teacher nor ``logit_scale``.

    Source:
        The released code of CLIP-KD (arXiv 2307.12732), cross_kd; its recipes leave it at weight zero.

    Example:
        Zero where the student equals the teacher, which has the scale that the learnable one starts from.

        >>> import torch
        >>> from kdlosses import CrossKDLoss
        >>> _ = torch.manual_seed(0)
        >>> teacher = torch.randn(8, 16), torch.randn(8, 16)
        >>> loss = CrossKDLoss()
        >>> loss(*teacher, 50.0, *teacher, 1 / 0.07).abs() < 1e-6
        tensor(True)
        >>> round(loss.cross_logit_scale.exp().item(), 4)
        14.2857
    """

    name = "cross_kd"


@register
class CrossKD(Term):
    """The term of `CrossKDLoss`, which has its formula."""

    name = "cross_kd"
    needs = frozenset({"teacher", "teacher_scale", "aligned", "cross_scale"})

    def compute(self, embeddings: Embeddings) -> Computation:
        """KL of both cross relations to the teacher's."""
        teacher = embeddings.teacher
        requests = [KL(embeddings.cross_i2t, teacher.i2t), KL(embeddings.cross_t2i, teacher.t2i)]
        return Computation(requests, mean_of_directions)

    def mixed(self, embeddings: Sequence[Embeddings], weights: Sequence[float]) -> Computation:
        """KL of each teacher's cross relations to the teachers' averaged distributions, weighted alike."""
        students = [(w, (one.cross_i2t, one.cross_t2i)) for w, one in zip(weights, embeddings, strict=True)]
        teachers = [(one.teacher.i2t, one.teacher.t2i) for one in embeddings]
        return divergence_from_mixture(students, teachers, weights)
