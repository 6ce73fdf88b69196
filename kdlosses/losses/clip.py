"""The CLIP loss (Radford et al. 2021): the task term of every recipe and the paper's baseline on its own."""

from __future__ import annotations

from kdlosses.base import DistillLoss
from kdlosses.registry import register
from kdlosses.requests import CrossEntropy, Term, mean_of_directions
from kdlosses.views import Views


@register
class CLIPLoss(DistillLoss):
    """Contrastive loss of the student alone: pulls each image to its own text among the batch, and back.

    ``L = 1/2 [ CE(c v s^T, diag) + CE(c s v^T, diag) ]`` with unit rows ``v`` (images), ``s`` (texts) and
    ``c = logit_scale``; each CE is a mean over the B rows, in nats. Identical in both variants.

    Drops in for ``open_clip.ClipLoss``, called by keyword or with three arguments; a teacher's arguments are checked
    and not used. Constructor and call: `DistillLoss`.

    Gradient: student features and ``logit_scale``. No parameters.
    Source: CLIP-KD (arXiv 2307.12732), the task loss.
    """

    name = "contrastive"

    @staticmethod
    def term(views: Views) -> Term:
        """Cross-entropy of both directions."""
        student = views.student
        return Term([CrossEntropy(student.i2t), CrossEntropy(student.t2i)], mean_of_directions)
