"""The SigLIP loss (Zhai et al. 2023, arXiv 2303.15343): the task term of models trained with a sigmoid."""

from __future__ import annotations

from kdlosses.base import DistillLoss
from kdlosses.registry import register
from kdlosses.requests import SigmoidCrossEntropy, Term
from kdlosses.views import Views


@register
class SigLIPLoss(DistillLoss):
    """Sigmoid loss of the student alone: each image and each text of the batch is a pair or it is not.

    ``L = -1/B sum_ij log sigmoid(y_ij (c v_i . s_j + b))`` with unit rows ``v`` (images), ``s`` (texts),
    ``c = logit_scale``, ``b = logit_bias``, ``y_ij`` 1 where ``i = j`` and -1 elsewhere; a sum over the B texts, a mean
    over the B images, in nats. Identical in both variants.

    Equals ``open_clip.loss.SigLipLoss``, over several processes too. ``logit_bias`` must be given (a SigLIP starts at
    -10); a teacher's arguments are checked and not used. Constructor and call: `DistillLoss`.

    Gradient: student features, ``logit_scale`` and ``logit_bias``. No parameters.
    Source: SigLIP (arXiv 2303.15343), Algorithm 1.
    """

    name = "siglip"
    needs = frozenset({"bias"})

    @staticmethod
    def term(views: Views) -> Term:
        """Binary cross-entropy with the labels; the sum over all pairs is the same from either side."""
        student = views.student
        return Term([SigmoidCrossEntropy(student.i2t, student.bias)], lambda rows: rows[0].mean())
