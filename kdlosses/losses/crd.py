"""CRD, contrastive relational distillation (CLIP-KD, arXiv 2307.12732)."""

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
class CRDLoss(TermLoss):
    """Contrastive relational distillation (CRD): KL divergence from the teacher's image-text softmax to the student's.

    ``L = 1/2 [ KL(c_T v_T s_T^T || c_S v_S s_S^T) + KL(c_T s_T v_T^T || c_S s_S v_S^T) ]``, softmax over rows, each
    KL a mean over the B rows, in nats. Zero where the student equals the teacher. Identical in both variants. The
    widths of student and teacher may differ: no projection is involved.

    Constructor arguments: see `DistillLoss`. Call arguments and result: see `DistillLoss.forward`.

    Gradient:
        Student features and ``logit_scale``; the teacher receives none. No parameters.

    Source:
        CLIP-KD (arXiv 2307.12732), L_CRD; called ckd in the released code.

    Example:
        >>> import torch
        >>> from kdlosses import CRDLoss
        >>> _ = torch.manual_seed(0)
        >>> student = torch.randn(8, 16), torch.randn(8, 16)
        >>> teacher = torch.randn(8, 32), torch.randn(8, 32)
        >>> loss = CRDLoss()
        >>> loss(*student, 14.3, *teacher, 100.0) > 0
        tensor(True)
        >>> loss(*teacher, 100.0, *teacher, 100.0)
        tensor(0.)
    """

    name = "crd"


@register
class CRD(Term):
    """The term of `CRDLoss`, which has its formula."""

    name = "crd"
    needs = frozenset({"scale", "teacher", "teacher_scale"})

    def compute(self, embeddings: Embeddings) -> Computation:
        """KL of both directions."""
        student, teacher = embeddings.student, embeddings.teacher
        return Computation([KL(student.i2t, teacher.i2t), KL(student.t2i, teacher.t2i)], mean_of_directions)

    def mixed(self, embeddings: Sequence[Embeddings], weights: Sequence[float]) -> Computation:
        """KL to the teachers' averaged distributions, both directions."""
        student = embeddings[0].student
        teachers = [(one.teacher.i2t, one.teacher.t2i) for one in embeddings]
        return divergence_from_mixture([(1.0, (student.i2t, student.t2i))], teachers, weights)
