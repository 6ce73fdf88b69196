"""FD, feature distillation (CLIP-KD, arXiv 2307.12732)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from kdlosses.backends.contract import Backend
from kdlosses.base import DistillLoss
from kdlosses.catalog import named
from kdlosses.embeddings import Embeddings
from kdlosses.registry import register
from kdlosses.relation import Pairs
from kdlosses.requests import SmoothDistance, SquaredDistance, add_up
from kdlosses.standardize import RunningStatistics
from kdlosses.state import TermState
from kdlosses.term import Computation, Term

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


_TOWERS = {"image": 1.0, "text": 1.0}


def feature_distance(
    student: Pairs, teacher: Pairs, towers: Mapping[str, float] = _TOWERS, smooth_l1: float = 0.0
) -> Computation:
    """``sum_t w_t mse(tower t)``, each a mean over B * D, of which ``smooth_l1`` is the share of a smooth L1."""
    width = teacher.image.values.shape[1]
    parts = [
        (weight * share, kind(getattr(student, tower), getattr(teacher, tower)))
        for tower, weight in towers.items()
        for kind, share in ((SquaredDistance, 1 - smooth_l1), (SmoothDistance, smooth_l1))
        if weight and share
    ]

    def by_pair(distances: Sequence[Tensor]) -> Tensor:
        return add_up(weight * one for (weight, _), one in zip(parts, distances, strict=True)) / width

    return Computation(
        [request for _, request in parts], lambda distances: by_pair([one.mean() for one in distances]), by_pair
    )


@named
class FDLoss(DistillLoss):
    """Feature distillation (FD): mean squared error between the student's and the teacher's unit embeddings.

    ``L = mse(P(v_S), v_T) + mse(P(s_S), s_T)``, each mse a mean over B * Dt elements of unit rows, without unit. P is
    ``visual_proj`` / ``text_proj``, a linear layer with bias applied before normalising, and exists only where the
    widths differ. Because of the mean over Dt a weight means more at small widths: 2000 at 512 is 750 at 192.
    Identical in both variants.

    With a weight w it is ``mean(1 - cos)`` with weight ``2 w / Dt``: the same loss.

    Call arguments and result: see `DistillLoss.forward`.

    Args:
        towers: which of "image" and "text" are compared, in a list or with weights. Of "image" alone, a call may leave
            out both text arguments (None): unlabelled images, the teacher's text tower kept for zero-shot use.
        smooth_l1: share, from 0 to 1, of each mse that is replaced by the mean of ``h(sqrt(Dt) d) / Dt``, d the
            difference of two numbers of unit rows and h smooth L1, ``h(e) = e^2 / 2`` up to 1 and ``|e| - 1/2`` beyond:
            half the mse for small differences, and less for outliers.
        standardize: ``"running"`` compares with the teacher's unit embeddings of which each number was given mean 0 and
            variance 1, and which were made unit again: numbers that all embeddings have in common teach nothing then.
            The statistics are those of the batches before, of all processes: buffers, saved with the loss. The first
            batch is compared as it is. Needs both widths.
        standardize_steps: training steps after which the statistics stay as they are.
        variant: see `DistillLoss`.
        student_dim: see `DistillLoss`; different widths need both.
        teacher_dim: see `DistillLoss`.
        backend: see `DistillLoss`.
        check: see `DistillLoss`.
        group: see `DistillLoss`.
        reduction: see `DistillLoss`.

    Raises:
        ValueError: as `DistillLoss`, for unknown towers or none, and a share that is not from 0 to 1.

    Gradient:
        Student features and P; the teacher receives none.

    Source:
        CLIP-KD (arXiv 2307.12732), L_FD, weight 2000. Images alone: Popp et al. (arXiv 2404.16637). Smooth L1 beside
        the cosine: RADIO and UNIC, there of embeddings that are not normalised. Standardized targets: UNIC, and EUPE,
        whose statistics are fixed after about 500 steps.

    Example:
        Opposite unit vectors are 2 apart: a squared distance of 4 over a width of 4, once for images, once for texts.

        >>> import torch
        >>> from kdlosses import FDLoss
        >>> features = torch.eye(4)
        >>> FDLoss()(features, features, 14.3, -features, -features, 100.0)
        tensor(2.)
        >>> FDLoss(student_dim=4, teacher_dim=6).visual_proj
        Linear(in_features=4, out_features=6, bias=True)

        Images alone:

        >>> FDLoss(towers=["image"])(features, None, 14.3, -features)
        tensor(1.)
    """

    name = "fd"

    def __init__(
        self,
        *,
        towers: Sequence[str] | Mapping[str, float] = ("image", "text"),
        smooth_l1: float = 0.0,
        standardize: str = "none",
        standardize_steps: int = 500,
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
            options={
                self.name: {
                    "towers": towers,
                    "smooth_l1": smooth_l1,
                    "standardize": standardize,
                    "standardize_steps": standardize_steps,
                }
            },
            variant=variant,
            student_dim=student_dim,
            teacher_dim=teacher_dim,
            backend=backend,
            check=check,
            group=group,
            reduction=reduction,
        )


@register
class FD(Term):
    """The term of `FDLoss`, which has its formula."""

    name = "fd"
    needs = frozenset({"teacher", "aligned"})
    default_weight: ClassVar[Mapping[str, float]] = {"paper": 2000.0, "released": 2000.0}
    options: ClassVar[Mapping[str, Any]] = {
        "towers": {"image": 1.0, "text": 1.0},
        "smooth_l1": 0.0,
        "standardize": ("none", "running"),
        "standardize_steps": 500,
    }

    def check(self, options: Mapping[str, Any]) -> None:
        """See `Term`."""
        if not any(options["towers"].values()):
            raise ValueError("option towers of term 'fd' must give image or text a weight above zero")
        if not 0 <= options["smooth_l1"] <= 1:
            raise ValueError(
                f"option smooth_l1 of term 'fd' is a share, from 0 for squares to 1 for smooth L1 alone, "
                f"got {options['smooth_l1']:g}"
            )
        if not options["standardize_steps"]:
            raise ValueError("option standardize_steps of term 'fd' must be at least 1, got 0")

    def towers(self, options: Mapping[str, Any]) -> frozenset[str]:
        """See `Term`."""
        return frozenset(tower for tower, weight in options["towers"].items() if weight)

    def state(self, options: Mapping[str, Any], teacher_dim: int | None) -> TermState | None:
        """See `Term`."""
        if options["standardize"] == "none":
            return None
        if teacher_dim is None:
            raise ValueError("fd standardizes the teacher's numbers: construct the loss with student_dim, teacher_dim")
        return RunningStatistics(teacher_dim, tuple(sorted(self.towers(options))), options["standardize_steps"])

    def compute(self, embeddings: Embeddings) -> Computation:
        """Distances of images and of texts."""
        own, teacher = embeddings.options, embeddings.teacher
        if own["standardize"] != "none":
            rows = {"image": teacher.image, "text": teacher.text}
            for side in self.towers(own):
                rows[side] = embeddings.rows(embeddings.state.standardized(side, rows[side].normalized()))
            teacher = Pairs(rows["image"], rows["text"], None)
        return feature_distance(embeddings.aligned, teacher, own["towers"], own["smooth_l1"])
