"""GD, gradient distillation (CLIP-KD, arXiv 2307.12732)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from kdlosses.catalog import named
from kdlosses.embeddings import Embeddings
from kdlosses.registry import register
from kdlosses.relation import Pairs
from kdlosses.requests import CrossEntropyGrad, add_up
from kdlosses.term import Computation, Term
from kdlosses.term_loss import TermLoss


@named
class GDLoss(TermLoss):
    """Gradient distillation (GD): mean squared error between the gradients of both models' CLIP losses.

    ``L = mse(G_v^S, G_v^T) + mse(G_s^S, G_s^T)``, each mse a mean over B * Dt. ``G_v`` and ``G_s`` are the gradients of
    the CLIP loss (mean over the batch, both directions) with respect to the unit image and text embeddings, each side
    at its own logit scale, the student's after P. They are computed in closed form by matrix products, where the
    released code builds a B x D x B tensor. Zero where the student equals the teacher.

    ``variant="released"`` divides the logits and the gradients by the scale it should multiply by, and compares the
    four one-direction gradients instead of two sums. Its weight 1e8 must not be used with ``variant="paper"``, whose
    value is about 1e8 times larger. The paper variant's weight was found by measuring: with 1e5 x (B / 1024)^2 x
    (D / 512) its gradient at the student's embeddings is about as long as the CLIP loss's once the scale has reached
    100, and shorter before (`harness/bench/gd_weight.py`, results beside it). The default is that for the paper's
    B = 1024, D = 512; scale it to yours.

    Constructor arguments: see `DistillLoss`; different widths need ``student_dim`` and ``teacher_dim``. Call
    arguments and result: see `DistillLoss.forward`.

    Gradient:
        Student features, ``logit_scale`` and P; the teacher receives none.

    Source:
        CLIP-KD (arXiv 2307.12732), L_GD.

    Example:
        >>> import torch
        >>> from kdlosses import GDLoss
        >>> _ = torch.manual_seed(0)
        >>> teacher = torch.randn(8, 16), torch.randn(8, 16)
        >>> student = torch.randn(8, 16), torch.randn(8, 16)
        >>> loss = GDLoss()
        >>> loss(*student, 14.3, *teacher, 100.0) > 0
        tensor(True)
        >>> loss(*teacher, 100.0, *teacher, 100.0)
        tensor(0.)
    """

    name = "gd"


@register
class GD(Term):
    """The term of `GDLoss`, which has its formula."""

    name = "gd"
    needs = frozenset({"scale", "teacher", "teacher_scale", "aligned"})
    default_weight: ClassVar[Mapping[str, float]] = {"paper": 1e5, "released": 1e8}
    weight_grows_by = "(B / 1024)^2 x (D / 512)"

    def compute(self, embeddings: Embeddings) -> Computation:
        """The gradients of both directions, for the student and for the teacher."""
        if embeddings.variant == "released":
            return Computation(_released(embeddings.aligned) + _released(embeddings.teacher), _sum_of_mse, _sum_by_pair)
        sides = embeddings.aligned, embeddings.teacher
        return Computation([CrossEntropyGrad(pairs.i2t, both=True) for pairs in sides], _sum_of_mse, _sum_by_pair)


def _released(pairs: Pairs) -> list[CrossEntropyGrad]:
    """Each direction by itself, at the inverse scale."""
    inverted = Pairs(pairs.image, pairs.text, 1 / pairs.i2t.scale)
    return [CrossEntropyGrad(inverted.i2t), CrossEntropyGrad(inverted.t2i)]


def _sum_of_mse(answers: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    return add_up(F.mse_loss(student, teacher) for student, teacher in _sides(answers))


def _sum_by_pair(answers: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """The errors of the gradients with respect to each pair's own embeddings."""
    return add_up((student - teacher).square().mean(1) for student, teacher in _sides(answers))


def _sides(answers: Sequence[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    """The first half of the answers, the student's, against the second, the teacher's."""
    half = len(answers) // 2
    return zip(chain(*answers[:half]), chain(*answers[half:]), strict=True)
