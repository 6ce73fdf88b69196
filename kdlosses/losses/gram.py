"""Gram matching: the student's similarities are to be the teacher's, as numbers and not as a softmax."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from kdlosses.backends.contract import Backend
from kdlosses.base import DistillLoss
from kdlosses.catalog import named
from kdlosses.embeddings import Embeddings
from kdlosses.registry import register
from kdlosses.relation import Relation
from kdlosses.requests import Request, mean_of_directions
from kdlosses.rows import Rows
from kdlosses.similarities import SquaredDifference
from kdlosses.term import Computation, Term

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


@named
class GramLoss(DistillLoss):
    """Gram matching: mean squared error between similarity matrices, in O(B D^2) time and O(D^2) memory.

    With unit rows v, s of the student and v_T, s_T of the teacher, means over all B x B entries:

    - ``pairs="intra"``: ``L = 1/2 [ mean_ij (v_i . v_j - v_Ti . v_Tj)^2 + mean_ij (s_i . s_j - s_Ti . s_Tj)^2 ]``;
    - ``pairs="cross"``: ``L = mean_ij (v_i . s_j - v_Ti . s_Tj)^2``;
    - ``pairs="cyclic"``: ``L = mean_ij (v_i . s_j - v_j . s_i)^2``, without a teacher: CyCLIP's cross-modal
      consistency, which it divides by B in place of B^2. Its in-modal half, ``v_i . v_j`` against ``s_i . s_j``, is
      not here.

    No temperature, no unit; the widths of student and teacher may differ. It is made of D x D products in float64, so
    that it keeps its digits where the student is nearly there. Identical in both variants.

    Call arguments and result: see `DistillLoss.forward`; a pair's value under ``reduction="none"`` is the mean of its
    row, its image's in ``"cross"`` and ``"cyclic"``.

    Args:
        pairs: ``"intra"``, ``"cross"`` or ``"cyclic"``.
        variant: see `DistillLoss`.
        student_dim: see `DistillLoss`.
        teacher_dim: see `DistillLoss`.
        backend: see `DistillLoss`; all but ``"reference"`` compute the same.
        check: see `DistillLoss`.
        group: see `DistillLoss`.
        reduction: see `DistillLoss`.

    Raises:
        ValueError: as `DistillLoss`, and for other pairs.

    Gradient:
        Student features; neither ``logit_scale`` nor the teacher. No parameters.

    Source:
        Similarity matching of embedding models (stella); cyclic: CyCLIP (arXiv 2205.14459).

    Example:
        Zero where all similarities agree, however the embeddings are turned.

        >>> import torch
        >>> from kdlosses import GramLoss
        >>> student, teacher = torch.eye(4), torch.eye(4).flip(1)
        >>> GramLoss()(student, student, 10.0, teacher, teacher)
        tensor(0.)
        >>> GramLoss()(student, student, 10.0, torch.ones(4, 4), teacher)  # 12 of 16 are wrong by 1, in one half
        tensor(0.3750)
    """

    name = "gram"

    def __init__(
        self,
        *,
        pairs: str = "intra",
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
            options={self.name: {"pairs": pairs}},
            variant=variant,
            student_dim=student_dim,
            teacher_dim=teacher_dim,
            backend=backend,
            check=check,
            group=group,
            reduction=reduction,
        )


@register
class Gram(Term):
    """The term of `GramLoss`, which has its formulas."""

    name = "gram"
    needs = frozenset({"teacher"})
    options: ClassVar[Mapping[str, Any]] = {"pairs": ("intra", "cross", "cyclic")}
    # A student's own symmetry needs no teacher.
    needs_with: ClassVar[Mapping[str, Mapping[str, Sequence[Any]]]] = {"teacher": {"pairs": ("intra", "cross")}}

    def compute(self, embeddings: Embeddings) -> Computation:
        """The differences of two modalities, or of one relation between them."""
        student, pairs = embeddings.student, embeddings.options["pairs"]
        if pairs == "cyclic":
            compared = [((student.image, student.text), (student.text, student.image))]
        elif pairs == "cross":
            compared = [((student.image, student.text), (embeddings.teacher.image, embeddings.teacher.text))]
        else:
            teacher = embeddings.teacher
            sides = ((student.image, teacher.image), (student.text, teacher.text))
            compared = [((own, own), (theirs, theirs)) for own, theirs in sides]
        return Computation([_difference(*both) for both in compared], mean_of_directions)


def _difference(first: tuple[Rows, Rows], second: tuple[Rows, Rows]) -> Request:
    return SquaredDifference(*(Relation(*sides, sides[0].inverse_norms.new_ones(())) for sides in (first, second)))
