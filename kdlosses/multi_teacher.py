"""`MultiTeacherLoss`: several teachers for one student."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal, cast, overload

import torch
from torch import Tensor, nn

from kdlosses.backends.contract import Backend
from kdlosses.base import DistillLoss
from kdlosses.checks import check_weight, check_width
from kdlosses.dropping import can_drop, dropped
from kdlosses.embeddings import Embeddings
from kdlosses.entries import Entry, Terms
from kdlosses.fit import check_call, check_dims, warn_unmasked
from kdlosses.guard import Guard
from kdlosses.inputs import Inputs, Scale, StudentArguments, computation_dtype, read_inputs
from kdlosses.layers import Layers, add_layers
from kdlosses.memo import Memo
from kdlosses.options import Options
from kdlosses.term import Computation
from kdlosses.weights import CLIP_KD

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


class MultiTeacherLoss(DistillLoss):
    """CLIP-KD with several teachers: their distributions are averaged, their features each have a projection.

    With teacher weights ``w_k``, divided by their sum:

    - contrastive and siglip have no teacher and count once;
    - crd is ``KL(sum_k w_k p_k || q)``, p_k the softmax of teacher k, q the student's, both directions; cross_kd the
      same, with ``sum_k w_k KL(sum_l w_l p_l || q_k)`` as each teacher's cross relation q_k is another;
    - affinity is the cross-entropy of q with ``sum_k w_k p_k``: MobileCLIP's soft targets, averaged after the softmax;
    - every other term is ``sum_k w_k L_k``, with projections, fusion layers and learnable scales of teacher k
      (``teachers[k]``).

    With one teacher it equals `CLIPKDLoss`. The mixture's KL costs what K KLs cost, and one more product forward for
    each teacher and direction: its value is ``sum_k w_k KL(p_k || q)`` less the constant
    ``sum_k w_k KL(p_k || sum_l w_l p_l)``, so it is zero where the student reaches the teachers' average.

    Args:
        weights: ``{term: weight}`` as in `CLIPKDLoss`.
        student_dim: student embedding width Ds.
        teacher_dims: embedding width of each teacher.
        teacher_weights: numbers above zero, one for each teacher; equal by default. Only their ratios count, so that
            another teacher does not change how much distillation weighs beside the contrastive term.
        terms: as in `CLIPKDLoss`.
        teacher_dropping: UNIC's regulariser, in training mode: for each pair, a teacher is dropped with this
            probability, unless the pair's loss to it is the largest (UNIC takes 0.5). For the terms that are sums over
            teachers, each by itself; crd, affinity and cross_kd follow all teachers' average still. Drawn by torch's
            generator of the device, on several processes by each for its own pairs.
        options: as in `CLIPKDLoss`; a teacher's scale is then that of every teacher.
        variant: see `DistillLoss`.
        backend: see `DistillLoss`.
        check: see `DistillLoss`.
        group: see `DistillLoss`.
        reduction: see `DistillLoss`.

    Raises:
        ValueError: as `CLIPKDLoss`, and for no teacher at all or weights that are not one number above zero for each.

    Gradient:
        The union of its terms'; no teacher receives any.

    Example:
        >>> import torch
        >>> from kdlosses import MultiTeacherLoss
        >>> _ = torch.manual_seed(0)
        >>> student = torch.randn(8, 16), torch.randn(8, 16)
        >>> images, texts = [torch.randn(8, 32), torch.randn(8, 24)], [torch.randn(8, 32), torch.randn(8, 24)]
        >>> weights = {"contrastive": 1.0, "crd": 1.0, "fd": 2000.0}
        >>> loss = MultiTeacherLoss(weights, student_dim=16, teacher_dims=[32, 24], teacher_weights=[3, 1])
        >>> list(loss(*student, 14.3, images, texts, [100.0, 50.0], output_dict=True))
        ['contrastive_loss', 'crd_loss', 'fd_loss']
        >>> loss.teacher_weights
        (0.75, 0.25)
        >>> [layers.visual_proj.out_features for layers in loss.teachers]
        [32, 24]
    """

    name = "multi_teacher"

    def __init__(
        self,
        weights: Mapping[str, float] | None = None,
        *,
        student_dim: int,
        teacher_dims: Sequence[int],
        teacher_weights: Sequence[float] | None = None,
        teacher_dropping: float = 0.0,
        options: Options | None = None,
        terms: Terms | None = None,
        variant: str = "paper",
        backend: str | Backend = "auto",
        check: bool = False,
        group: str | ProcessGroup | None = "auto",
        reduction: str = "mean",
    ) -> None:
        super().__init__(
            CLIP_KD if weights is None else weights,
            options=options,
            terms=terms,
            variant=variant,
            student_dim=student_dim,
            backend=backend,
            check=check,
            group=group,
            reduction=reduction,
        )
        self.teacher_dims = tuple(teacher_dims)
        self.teacher_weights = _normalized(teacher_weights, len(self.teacher_dims))
        self.teacher_dropping = self._checked_dropping(teacher_dropping)
        self.teachers = self._of_teachers(student_dim)
        for layers, width in zip(self._layers(), self.teacher_dims, strict=True):
            self._add_states(layers, width)
        self._guard = Guard(self)

    def _checked_dropping(self, share: float) -> float:
        if isinstance(share, bool) or not isinstance(share, Real) or not 0 <= share <= 1:
            raise ValueError(f"teacher_dropping must be a probability, from 0 to 1, got {share!r}")
        if share and not any(can_drop(entry) for entry in self._terms.values()):
            raise ValueError(
                f"teacher_dropping has nothing to drop: no term of {', '.join(self.weights)} is a sum over teachers; "
                "add one that is, such as fd"
            )
        return float(share)

    def _add_layers(self, student_dim: int | None, teacher_dim: int | None) -> None:
        """None of the loss's own: each teacher has some."""
        check_width("student_dim", student_dim)
        self.student_dim = student_dim

    def _of_teachers(self, student_dim: int) -> nn.ModuleList:
        found = nn.ModuleList()
        for number, width in enumerate(self.teacher_dims):
            check_width(f"teacher_dims[{number}]", width)
            check_dims(type(self).__name__, self._needs, self.variant, student_dim, width)
            layers = Layers()
            add_layers(layers, self._needs, student_dim, width, self._projected)
            found.append(layers)
        return found

    def new_layers(self, student_dim: int) -> nn.Module:
        """See `DistillLoss`."""
        found = nn.Module()
        found.teachers = self._of_teachers(student_dim)
        return found

    @property
    def teacher_count(self) -> int:
        """How many teachers a call has, each with an entry in what ``computations`` takes."""
        return len(self.teacher_dims)

    @overload  # type: ignore[override]  # a sequence where the other losses take one teacher's
    def forward(
        self,
        image_features: Tensor,
        text_features: Tensor | None,
        logit_scale: Scale,
        dist_image_features: Sequence[Tensor] | None = ...,
        dist_text_features: Sequence[Tensor] | None = ...,
        dist_logit_scale: Sequence[Scale] | None = ...,
        output_dict: Literal[False] = ...,
        logit_bias: Scale | None = ...,
        dist_logit_bias: Sequence[Scale | None] | None = ...,
        *,
        masked_image_features: Tensor | None = ...,
        bank_targets: Tensor | None = ...,
        group_ids: Tensor | None = ...,
    ) -> Tensor: ...

    @overload
    def forward(
        self,
        image_features: Tensor,
        text_features: Tensor | None,
        logit_scale: Scale,
        dist_image_features: Sequence[Tensor] | None = ...,
        dist_text_features: Sequence[Tensor] | None = ...,
        dist_logit_scale: Sequence[Scale] | None = ...,
        output_dict: Literal[True] = ...,
        logit_bias: Scale | None = ...,
        dist_logit_bias: Sequence[Scale | None] | None = ...,
        *,
        masked_image_features: Tensor | None = ...,
        bank_targets: Tensor | None = ...,
        group_ids: Tensor | None = ...,
    ) -> dict[str, Tensor]: ...

    @overload
    def forward(
        self,
        image_features: Tensor,
        text_features: Tensor | None,
        logit_scale: Scale,
        dist_image_features: Sequence[Tensor] | None = ...,
        dist_text_features: Sequence[Tensor] | None = ...,
        dist_logit_scale: Sequence[Scale] | None = ...,
        output_dict: bool = ...,
        logit_bias: Scale | None = ...,
        dist_logit_bias: Sequence[Scale | None] | None = ...,
        *,
        masked_image_features: Tensor | None = ...,
        bank_targets: Tensor | None = ...,
        group_ids: Tensor | None = ...,
    ) -> Tensor | dict[str, Tensor]: ...

    def forward(
        self,
        image_features: Tensor,
        text_features: Tensor | None,
        logit_scale: Scale,
        dist_image_features: Sequence[Tensor] | None = None,
        dist_text_features: Sequence[Tensor] | None = None,
        dist_logit_scale: Sequence[Scale] | None = None,
        output_dict: bool = False,
        logit_bias: Scale | None = None,
        dist_logit_bias: Sequence[Scale | None] | None = None,
        *,
        masked_image_features: Tensor | None = None,
        bank_targets: Tensor | None = None,
        group_ids: Tensor | None = None,
    ) -> Tensor | dict[str, Tensor]:
        """Compute the loss of one batch of pairs; row i of every tensor is the same image-text pair.

        Args:
            image_features: ``[B, Ds]`` student image embeddings, any floating dtype, normalised or not.
            text_features: ``[B, Ds]`` student text embeddings; None where no term reads texts.
            logit_scale: the student's 1/temperature, already exponentiated: a number or a tensor ``[]`` or ``[1]``.
            dist_image_features: a ``[B, Dt]`` tensor for each teacher, of its width; they receive no gradient.
            dist_text_features: likewise.
            dist_logit_scale: likewise, a number or tensor for each teacher.
            output_dict: return the weighted terms by name instead of their sum.
            logit_bias: the student's, a number or a tensor ``[]`` or ``[1]``; needed by the sigmoid terms, which give
                it a gradient. The softmax terms ignore it: a constant added to all logits cannot change a softmax.
            dist_logit_bias: a number or tensor for each teacher, or None for one that has none, where no term reads it.
            masked_image_features: ``[B, Ds]`` student embeddings of masked images, read by mfd alone.
            bank_targets: as in `DistillLoss`; the same for every teacher's bank.
            group_ids: see `DistillLoss`.

        Returns:
            As `DistillLoss`; a term's entry is over all teachers.

        Raises:
            ValueError: as `DistillLoss`, naming the teacher, and where the number of teachers is another.
        """
        warn_unmasked(self.weights, self._needs, self.variant, masked_image_features)
        student = (image_features, text_features, logit_scale, logit_bias)
        teachers = (dist_image_features, dist_text_features, dist_logit_scale, dist_logit_bias)
        more = bank_targets, group_ids
        return self._compute(lambda: self._read(student, teachers, masked_image_features, *more), output_dict)

    if TYPE_CHECKING:
        __call__ = forward  # type: ignore[assignment]  # as forward itself

    def _read(
        self,
        student: StudentArguments,
        teacher: tuple[Any, ...],
        masked: Tensor | None,
        targets: Tensor | None = None,
        groups: Tensor | None = None,
    ) -> list[Inputs]:
        names = ("dist_image_features", "dist_text_features", "dist_logit_scale", "dist_logit_bias")
        images, texts, scales, biases = (self._entries(*named) for named in zip(names, teacher, strict=True))
        dtype = computation_dtype([*student[:2], *images, *texts, masked])
        found = []
        for number, width in enumerate(self.teacher_dims):
            outputs = images[number], texts[number], scales[number], biases[number]
            try:
                reads = "text" in self._towers
                inputs = read_inputs(*student, *outputs, masked, self.check, dtype, reads, groups, targets)
                check_call(type(self).__name__, self._needs, inputs, self.student_dim, width)
            except ValueError as error:
                raise ValueError(f"teacher {number}: {error}") from error
            found.append(inputs)
        found = self._checked(found)
        return self._drawn(found) if self.teacher_dropping and self.training else found

    @staticmethod
    def _drawn(inputs: list[Inputs]) -> list[Inputs]:
        image = inputs[0].image
        return [one.changed(draws=torch.rand(image.shape[0], device=image.device)) for one in inputs]

    def _layers(self) -> list[Layers]:
        return [cast(Layers, layers) for layers in self.teachers]

    def _entries(self, name: str, given: Any) -> Sequence[Any]:
        count = len(self.teacher_dims)
        if given is None:
            return [None] * count
        if not isinstance(given, Sequence) or len(given) != count:
            got = f"{len(given)}" if isinstance(given, Sequence) else type(given).__name__
            raise ValueError(f"{name} must be a list of {count} entries, one for each teacher, got {got}")
        return given

    def _embeddings(self, inputs: list[Inputs], layers: nn.Module, memo: Memo | None) -> list[Embeddings]:
        found: list[Embeddings] = []
        for own, one in zip(cast(nn.ModuleList, layers.teachers), inputs, strict=True):
            student = found[0].student if found else None  # so that their relations are computed once
            found.append(Embeddings(cast(Layers, own), self.variant, one, student, memo))
        return found

    def _computation(self, entry: Entry, embeddings: list[Embeddings]) -> Computation:
        term = entry.term
        if len(embeddings) > 1 and entry.needs & {"teacher", "aligned"}:
            draws = [one.draws for one in embeddings if one.draws is not None]
            if draws and can_drop(entry):
                parts = [term.compute(one) for one in embeddings]
                return dropped(term, parts, self.teacher_weights, draws, self.teacher_dropping)
            return term.mixed(embeddings, self.teacher_weights)
        return term.compute(embeddings[0])

    def extra_repr(self) -> str:
        """The terms, teachers and settings, for ``print(loss)``."""
        teachers = ", ".join(f"{w:g} x {d}" for w, d in zip(self.teacher_weights, self.teacher_dims, strict=True))
        dropping = f", teacher_dropping={self.teacher_dropping:g}" if self.teacher_dropping else ""
        return f"{super().extra_repr()}, teachers (weight x width): {teachers}{dropping}"


def _normalized(weights: Sequence[float] | None, count: int) -> tuple[float, ...]:
    if not count:
        raise ValueError("teacher_dims must name the width of at least one teacher, got none")
    weights = [1.0] * count if weights is None else list(weights)
    if len(weights) != count:
        raise ValueError(f"teacher_weights must have {count} entries, one for each of teacher_dims, got {len(weights)}")
    for number, weight in enumerate(weights):
        check_weight(f"teacher {number}", weight)
        if not weight:
            raise ValueError(f"weight of teacher {number} must be above zero, got {weight!r}; leave the teacher out")
    total = sum(map(float, weights))
    return tuple(float(weight) / total for weight in weights)
