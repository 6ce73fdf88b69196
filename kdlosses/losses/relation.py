"""Relation distillation in general: softmax similarities of any two sides, held to the teacher's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from kdlosses.backends.contract import Backend
from kdlosses.base import DistillLoss
from kdlosses.catalog import named
from kdlosses.embeddings import Embeddings
from kdlosses.mixture import divergence_from_mixture
from kdlosses.registry import register
from kdlosses.relation import Pairs, Relation
from kdlosses.requests import KL, Request, ReverseKL, SoftCrossEntropy, mean_of_directions
from kdlosses.rows import Rows
from kdlosses.term import Computation, Term

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

_DIVERGENCES: dict[str, Callable[[Relation, Relation], Request]] = {
    "kl": KL,
    "ce": SoftCrossEntropy,
    "reverse_kl": ReverseKL,
}


@named
class RelationLoss(DistillLoss):
    """Relation distillation: the student's softmax similarities between two sides follow the teacher's.

    ``L = D(softmax(c_T q_T k_T^T), softmax(c_S q k^T))``, a mean over the B rows, in nats; D(p, q) is ``KL(p || q)``,
    the cross-entropy ``- sum p log q`` or ``KL(q || p)``. By default images among themselves (intra-modal), a row's
    similarity with itself left out of both softmaxes: it is 1 whatever the student does, and outweighs all others.
    Where queries and keys are two sides, the mean of the relation's rows and of its columns. Identical in both
    variants.

    Special cases: ``queries="image", keys="text"`` is `CRDLoss`, with ``divergence="ce"`` `AffinityLoss`; the mean of
    ("image", "teacher_text") and ("text", "teacher_image") in one direction is `CrossKDLoss` at a scale that is not
    learned; ("image", "teacher_image") against ("teacher_image", "teacher_image") are DIME-FM's pseudo-pairs.

    Several teachers, in `MultiTeacherLoss`: the divergence "kl" is from the average of their softmaxes.

    Call arguments and result: see `DistillLoss.forward`.

    Args:
        queries: "image", "text", "teacher_image" or "teacher_text": the rows of the student's relation.
        keys: likewise, the columns. One of the two must be the student's. Where the other is the teacher's, the
            student's is projected (P) if the widths differ.
        teacher_queries: "teacher_image" or "teacher_text"; by default the teacher's for ``queries``.
        teacher_keys: likewise for ``keys``.
        divergence: "kl", "ce" or "reverse_kl".
        exclude_diagonal: whether row i leaves column i out; by default where ``queries`` are ``keys``.
        both_directions: whether columns count as well as rows; by default where ``queries`` are not ``keys``.
        student_scale: a constant in place of ``logit_scale``, which then gets no gradient from this term.
        teacher_scale: a constant in place of ``dist_logit_scale``, which is then not needed.
        variant: see `DistillLoss`.
        student_dim: see `DistillLoss`.
        teacher_dim: see `DistillLoss`.
        backend: see `DistillLoss`.
        check: see `DistillLoss`.
        group: see `DistillLoss`.
        reduction: see `DistillLoss`.

    Raises:
        ValueError: as `DistillLoss`, for an unknown side or divergence, for a scale that is not above zero, and where
            both sides are the teacher's.

    Gradient:
        The student's features among the sides, ``logit_scale``, and P where it is used; the teacher receives none.

    Source:
        CRD of CLIP-KD (arXiv 2307.12732) between other sides; pseudo-pairs of DIME-FM (arXiv 2303.18232).

    Example:
        A student whose images are arranged as the teacher's has nothing to learn, whatever its width and rotation.

        >>> import torch
        >>> from kdlosses import RelationLoss
        >>> _ = torch.manual_seed(0)
        >>> image, text = torch.randn(8, 16), torch.randn(8, 16)
        >>> turned = image @ torch.linalg.qr(torch.randn(16, 16))[0]
        >>> RelationLoss()(turned, text, 20.0, image, text, 20.0).abs() < 1e-5
        tensor(True)
        >>> print(RelationLoss(queries="text", keys="text"))
        RelationLoss(1 relation(queries='text', keys='text'), variant='paper', backend='auto')
    """

    name = "relation"

    def __init__(
        self,
        *,
        queries: str = "image",
        keys: str = "image",
        teacher_queries: str | None = None,
        teacher_keys: str | None = None,
        divergence: str = "kl",
        exclude_diagonal: bool | None = None,
        both_directions: bool | None = None,
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
        own = {
            "queries": queries,
            "keys": keys,
            "teacher_queries": teacher_queries,
            "teacher_keys": teacher_keys,
            "divergence": divergence,
            "exclude_diagonal": exclude_diagonal,
            "both_directions": both_directions,
            "student_scale": student_scale,
            "teacher_scale": teacher_scale,
        }
        super().__init__(
            {self.name: 1.0},
            options={self.name: own},
            variant=variant,
            student_dim=student_dim,
            teacher_dim=teacher_dim,
            backend=backend,
            check=check,
            group=group,
            reduction=reduction,
        )


@register
class RelationTerm(Term):
    """The term of `RelationLoss`, which has its formula."""

    name = "relation"
    needs = frozenset({"scale", "teacher", "teacher_scale", "aligned"})
    options: ClassVar[Mapping[str, Any]] = {
        "queries": ("image", "text", "teacher_image", "teacher_text"),
        "keys": ("image", "text", "teacher_image", "teacher_text"),
        "teacher_queries": (None, "teacher_image", "teacher_text"),
        "teacher_keys": (None, "teacher_image", "teacher_text"),
        "divergence": ("kl", "ce", "reverse_kl"),
        "exclude_diagonal": (None, True, False),
        "both_directions": (None, True, False),
        "student_scale": None,
        "teacher_scale": None,
    }
    needs_with: ClassVar[Mapping[str, Mapping[str, Sequence[Any]]]] = {
        "scale": {"student_scale": (None,)},
        "teacher_scale": {"teacher_scale": (None,)},
        "aligned": {"queries": ("teacher_image", "teacher_text"), "keys": ("teacher_image", "teacher_text")},
    }

    def check(self, options: Mapping[str, Any]) -> None:
        """See `Term`."""
        if options["queries"].startswith("teacher") and options["keys"].startswith("teacher"):
            raise ValueError(
                f"a relation of {options['queries']} and {options['keys']} has nothing to train: queries or keys must "
                "be the student's, image or text"
            )

    def towers(self, options: Mapping[str, Any]) -> frozenset[str]:
        """See `Term`."""
        sides = (options["queries"], options["keys"], *_teacher_sides(options))
        return frozenset(side.removeprefix("teacher_") for side in sides)

    def projected(self, options: Mapping[str, Any]) -> frozenset[str]:
        """See `Term`."""
        return frozenset({options["queries"], options["keys"]} & {"image", "text"})

    def compute(self, embeddings: Embeddings) -> Computation:
        """The divergence of each direction."""
        kind = _DIVERGENCES[embeddings.options["divergence"]]
        pairs = zip(_student(embeddings), _teacher(embeddings), strict=True)
        return Computation([kind(student, teacher) for student, teacher in pairs], mean_of_directions)

    def mixed(self, embeddings: Sequence[Embeddings], weights: Sequence[float]) -> Computation:
        """KL to the teachers' averaged distributions; of other divergences the mean of those for each."""
        if embeddings[0].options["divergence"] != "kl":
            return super().mixed(embeddings, weights)
        students = [(weight, _student(one)) for weight, one in zip(weights, embeddings, strict=True)]
        if not _is_across(embeddings[0].options):  # the same for every teacher
            students = [(1.0, students[0][1])]
        return divergence_from_mixture(students, [_teacher(one) for one in embeddings], weights)


def _is_across(options: Mapping[str, Any]) -> bool:
    """Whether the student is compared with the teacher's embeddings, in its space."""
    return any(options[side].startswith("teacher") for side in ("queries", "keys"))


def _student(embeddings: Embeddings) -> list[Relation]:
    own = embeddings.options
    pairs = embeddings.aligned if _is_across(own) else embeddings.student
    pairs = pairs.at(own["student_scale"])
    return _directions(embeddings, pairs, own["queries"], own["keys"], pairs)


def _teacher(embeddings: Embeddings) -> list[Relation]:
    own = embeddings.options
    queries, keys = _teacher_sides(own)
    return _directions(embeddings, embeddings.teacher.at(own["teacher_scale"]), queries, keys, None)


def _teacher_sides(options: Mapping[str, Any]) -> list[str]:
    return [
        options[f"teacher_{which}"] or f"teacher_{options[which].removeprefix('teacher_')}"
        for which in ("queries", "keys")
    ]


def _directions(embeddings: Embeddings, pairs: Pairs, queries: str, keys: str, student: Pairs | None) -> list[Relation]:
    """The relation of two sides at the scale of ``pairs``, and its transpose where both directions are asked for."""
    own = embeddings.options
    excluded, both = own["exclude_diagonal"], own["both_directions"]
    across = own["queries"] != own["keys"]
    rows = _side(embeddings, queries, student), _side(embeddings, keys, student)
    # Between image and text of one model it is the relation that other terms read, which then share it.
    whole = [one for one in (pairs.i2t, pairs.t2i) if one.queries is rows[0] and one.keys is rows[1]]
    if not across if excluded is None else excluded:
        found = _made(rows, pairs.scale, "excluded")
    else:
        found = whole[0] if whole else _made(rows, pairs.scale, "positive")
    if not (across if both is None else both):
        return [found]
    return [found, found.source or found.transposed()]


def _made(rows: tuple[Rows, Rows], scale: Tensor | None, diagonal: str) -> Relation:
    assert scale is not None, "pairs without a scale have refused their relations"
    return Relation(*rows, scale, diagonal=diagonal)


def _side(embeddings: Embeddings, name: str, student: Pairs | None) -> Rows:
    pairs = embeddings.teacher if name.startswith("teacher") else student
    assert pairs is not None, "a teacher's side is named by its teacher"
    return pairs.image if name.endswith("image") else pairs.text
