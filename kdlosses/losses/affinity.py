"""Affinity mimicking: cross-entropy with the teacher's softmax (TinyCLIP, arXiv 2309.12314)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from kdlosses.backends.contract import Backend
from kdlosses.base import DistillLoss
from kdlosses.catalog import named
from kdlosses.embeddings import Embeddings
from kdlosses.registry import register
from kdlosses.requests import SoftCrossEntropy, mean_of_directions
from kdlosses.term import Computation, Term

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


@named
class AffinityLoss(DistillLoss):
    """Affinity mimicking: cross-entropy of the student's image-text softmax with the teacher's as soft targets.

    ``L = 1/2 [ CE(softmax(c_T v_T s_T^T), c_S v_S s_S^T) + CE(softmax(c_T s_T v_T^T), c_S s_S v_S^T) ]`` with
    ``CE(p, z) = - sum_j p_j log softmax(z)_j``, each a mean over the B rows, in nats. It is `CRDLoss` plus the entropy
    of the teacher's rows: the same gradients, and a value that stays above zero. Identical in both variants. The widths
    of student and teacher may differ: no projection is involved.

    Several teachers, in `MultiTeacherLoss`: the target is the average of their softmaxes, each at its own scale.

    Call arguments and result: see `DistillLoss.forward`.

    Args:
        student_scale: a constant in place of ``logit_scale``, which then gets no gradient from this term.
        teacher_scale: a constant in place of ``dist_logit_scale``, of every teacher (MobileCLIP takes 100). A call
            takes both scales all the same.
        variant: see `DistillLoss`.
        student_dim: see `DistillLoss`.
        teacher_dim: see `DistillLoss`.
        backend: see `DistillLoss`.
        check: see `DistillLoss`.
        group: see `DistillLoss`.
        reduction: see `DistillLoss`.

    Raises:
        ValueError: as `DistillLoss`, and for a scale that is not a number above zero.

    Gradient:
        Student features and ``logit_scale``; the teacher receives none. No parameters.

    Source:
        Affinity mimicking of TinyCLIP (arXiv 2309.12314); the distillation term of open_clip's DistillClipLoss; the
        soft targets of MobileCLIP (arXiv 2311.17049), which average several teachers after the softmax.

    Example:
        A teacher at scale 0 asks for the uniform distribution, whose entropy is ln B; a constant scale replaces it.

        >>> import torch
        >>> from kdlosses import AffinityLoss, CRDLoss
        >>> features = torch.eye(4)
        >>> AffinityLoss()(features, features, 0.0, features, features, 0.0)
        tensor(1.3863)
        >>> CRDLoss()(features, features, 0.0, features, features, 0.0)
        tensor(0.)
        >>> print(AffinityLoss(teacher_scale=100.0))
        AffinityLoss(1 affinity(teacher_scale=100), variant='paper', backend='auto')
    """

    name = "affinity"

    def __init__(
        self,
        *,
        student_scale: float | None = None,
        teacher_scale: float | None = None,
        variant: str = "paper",
        student_dim: int | None = None,
        teacher_dim: int | None = None,
        backend: str | Backend = "auto",
        check: bool = False,
        group: str | ProcessGroup | None = "auto",
        reduction: str = "mean",
    ) -> None:
        super().__init__(
            {self.name: 1.0},
            options={self.name: {"student_scale": student_scale, "teacher_scale": teacher_scale}},
            variant=variant,
            student_dim=student_dim,
            teacher_dim=teacher_dim,
            backend=backend,
            check=check,
            group=group,
            reduction=reduction,
        )


@register
class Affinity(Term):
    """The term of `AffinityLoss`, which has its formula."""

    name = "affinity"
    needs = frozenset({"scale", "teacher", "teacher_scale"})
    options: ClassVar[Mapping[str, Any]] = {"student_scale": None, "teacher_scale": None}

    def compute(self, embeddings: Embeddings) -> Computation:
        """Soft cross-entropy of both directions."""
        own = embeddings.options
        student, teacher = embeddings.student.at(own["student_scale"]), embeddings.teacher.at(own["teacher_scale"])
        requests = [SoftCrossEntropy(student.i2t, teacher.i2t), SoftCrossEntropy(student.t2i, teacher.t2i)]
        return Computation(requests, mean_of_directions)
