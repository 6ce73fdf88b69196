"""FD, feature distillation (CLIP-KD, arXiv 2307.12732)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from kdlosses.base import TermLoss
from kdlosses.catalog import named
from kdlosses.embeddings import Embeddings
from kdlosses.registry import register
from kdlosses.relation import Pairs
from kdlosses.requests import SquaredDistance, add_up
from kdlosses.term import Computation, Term


def feature_mse(student: Pairs, teacher: Pairs) -> Computation:
    """``mse(images) + mse(texts)``, each a mean over B * D."""
    width = teacher.image.values.shape[1]
    requests = [SquaredDistance(student.image, teacher.image), SquaredDistance(student.text, teacher.text)]
    return Computation(
        requests,
        lambda distances: (distances[0].mean() + distances[1].mean()) / width,
        lambda distances: add_up(distances) / width,
    )


@named
class FDLoss(TermLoss):
    """Feature distillation (FD): mean squared error between the student's and the teacher's unit embeddings.

    ``L = mse(P(v_S), v_T) + mse(P(s_S), s_T)``, each mse a mean over B * Dt elements of unit rows, without unit. P is
    ``visual_proj`` / ``text_proj``, a linear layer with bias applied before normalising, and exists only where the
    widths differ. Because of the mean over Dt a weight means more at small widths: 2000 at 512 is 750 at 192.
    Identical in both variants.

    Constructor arguments: see `DistillLoss`; different widths need ``student_dim`` and ``teacher_dim``. Call
    arguments and result: see `DistillLoss.forward`.

    Gradient:
        Student features and P; the teacher receives none.

    Source:
        CLIP-KD (arXiv 2307.12732), L_FD, weight 2000.

    Example:
        Opposite unit vectors are 2 apart: a squared distance of 4 over a width of 4, once for images, once for texts.

        >>> import torch
        >>> from kdlosses import FDLoss
        >>> features = torch.eye(4)
        >>> FDLoss()(features, features, 14.3, -features, -features, 100.0)
        tensor(2.)
        >>> FDLoss(student_dim=4, teacher_dim=6).visual_proj
        Linear(in_features=4, out_features=6, bias=True)
    """

    name = "fd"


@register
class FD(Term):
    """The term of `FDLoss`, which has its formula."""

    name = "fd"
    needs = frozenset({"teacher", "aligned"})
    default_weight: ClassVar[Mapping[str, float]] = {"paper": 2000.0, "released": 2000.0}

    def compute(self, embeddings: Embeddings) -> Computation:
        """Distances of images and of texts."""
        return feature_mse(embeddings.aligned, embeddings.teacher)
