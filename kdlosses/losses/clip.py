"""The CLIP loss (Radford et al. 2021): the task term of every recipe and the paper's baseline on its own."""

from __future__ import annotations

from kdlosses.base import TermLoss
from kdlosses.catalog import named
from kdlosses.embeddings import Embeddings
from kdlosses.registry import register
from kdlosses.requests import CrossEntropy, mean_of_directions
from kdlosses.term import Computation, Term


@named
class CLIPLoss(TermLoss):
    """CLIP's contrastive loss of the student alone: symmetric InfoNCE over the batch.

    Pulls each image to its own text among the batch's texts, and each text to its own image:

    ``L = 1/2 [ CE(c v s^T, diag) + CE(c s v^T, diag) ]`` with unit rows ``v`` (images), ``s`` (texts) and
    ``c = logit_scale``; each CE is a mean over the B rows, in nats. Identical in both variants.

    Drops in for ``open_clip.ClipLoss``, called by keyword or with three arguments; a teacher's arguments are checked
    and not used.

    Constructor arguments: see `DistillLoss`. Call arguments and result: see `DistillLoss.forward`.

    Gradient:
        Student features and ``logit_scale``. No parameters.

    Source:
        CLIP (arXiv 2103.00020); the task loss of CLIP-KD (arXiv 2307.12732).

    Example:
        At scale 0 every text is equally likely, so the loss is ln B; a larger scale makes matching pairs stand out.

        >>> import torch
        >>> from kdlosses import CLIPLoss
        >>> image, text = torch.eye(4), torch.eye(4)  # four pairs, unlike each other
        >>> CLIPLoss()(image, text, logit_scale=0.0)
        tensor(1.3863)
        >>> CLIPLoss()(image, text, logit_scale=10.0)
        tensor(0.0001)
    """

    name = "contrastive"


@register
class CLIP(Term):
    """The term of `CLIPLoss`, which has its formula."""

    name = "contrastive"
    needs = frozenset({"scale"})

    def compute(self, embeddings: Embeddings) -> Computation:
        """Cross-entropy of both directions."""
        student = embeddings.student
        return Computation([CrossEntropy(student.i2t), CrossEntropy(student.t2i)], mean_of_directions)
