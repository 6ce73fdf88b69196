"""Cross-model KD: a term of the released code that its recipes leave at weight zero."""

from __future__ import annotations

from collections.abc import Sequence

from kdlosses.base import DistillLoss
from kdlosses.mixture import divergence_from_mixture
from kdlosses.registry import register
from kdlosses.requests import KL, Term, mean_of_directions
from kdlosses.views import Views


@register
class CrossKDLoss(DistillLoss):
    """Pulls student-to-teacher similarity distributions to the teacher's own.

    ``L = 1/2 [ KL(c_T v_T s_T^T || c' P(v_S) s_T^T) + KL(c_T s_T v_T^T || c' P(s_S) v_T^T) ]``, each KL a mean over the
    B rows, in nats. ``c'`` and P are those of `ICLLoss`, and shared with it in `CLIPKDLoss`.

    ``variant="released"`` multiplies by ``cross_logit_scale`` itself: it starts at 2.659 and is not clamped.

    Constructor and call: `DistillLoss`; different widths need ``student_dim`` and ``teacher_dim``.

    Gradient: student features, P and ``cross_logit_scale``; neither the teacher nor ``logit_scale``.
    Source: the released code of CLIP-KD (arXiv 2307.12732), cross_kd.
    """

    name = "cross_kd"
    needs = frozenset({"teacher", "teacher_scale", "aligned", "cross_scale"})

    @staticmethod
    def term(views: Views) -> Term:
        """KL of both cross relations to the teacher's."""
        teacher = views.teacher
        return Term([KL(views.cross_i2t, teacher.i2t), KL(views.cross_t2i, teacher.t2i)], mean_of_directions)

    @classmethod
    def mixed(cls, views: Sequence[Views], weights: Sequence[float]) -> Term:
        """KL of each teacher's cross relations to the teachers' averaged distributions, weighted alike."""
        students = [(w, (one.cross_i2t, one.cross_t2i)) for w, one in zip(weights, views, strict=True)]
        return divergence_from_mixture(students, [one.teacher for one in views], weights)
