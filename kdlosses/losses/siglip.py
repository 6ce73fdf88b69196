"""The SigLIP loss (Zhai et al. 2023, arXiv 2303.15343): the task term of models trained with a sigmoid."""

from __future__ import annotations

from kdlosses.base import TermLoss
from kdlosses.catalog import named
from kdlosses.embeddings import Embeddings
from kdlosses.registry import register
from kdlosses.requests import SigmoidCrossEntropy, mean_of_directions
from kdlosses.term import Computation, Term


@named
class SigLIPLoss(TermLoss):
    """SigLIP's sigmoid loss of the student alone: binary cross-entropy over all B x B pairs.

    ``L = -1/B sum_ij log sigmoid(y_ij (c v_i . s_j + b))`` with unit rows ``v`` (images), ``s`` (texts),
    ``c = logit_scale``, ``b = logit_bias``, ``y_ij`` 1 where ``i = j`` and -1 elsewhere; a sum over the B texts, a mean
    over the B images, in nats. Identical in both variants.

    Equals ``open_clip.loss.SigLipLoss``, over several processes too. ``logit_bias`` must be given (a SigLIP starts at
    -10); a teacher's arguments are checked and not used.

    Constructor arguments: see `DistillLoss`. Call arguments and result: see `DistillLoss.forward`.

    Gradient:
        Student features, ``logit_scale`` and ``logit_bias``. No parameters.

    Source:
        SigLIP (arXiv 2303.15343), Algorithm 1.

    Example:
        At scale and bias 0 every pair has probability 1/2: ln 2 for each of the B texts.

        >>> import torch
        >>> from kdlosses import SigLIPLoss
        >>> image, text = torch.eye(4), torch.eye(4)
        >>> SigLIPLoss()(image, text, logit_scale=0.0, logit_bias=0.0)
        tensor(2.7726)
    """

    name = "siglip"


@register
class SigLIP(Term):
    """The term of `SigLIPLoss`, which has its formula."""

    name = "siglip"
    needs = frozenset({"scale", "bias"})

    def compute(self, embeddings: Embeddings) -> Computation:
        """Binary cross-entropy with the labels; the sum over all pairs is the same from either side."""
        student = embeddings.student
        assert student.bias is not None, "check_call refuses calls without it"
        return Computation([SigmoidCrossEntropy(student.i2t, student.bias)], mean_of_directions)
