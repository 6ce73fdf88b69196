"""`MultiCaptionLoss`: several captions of each image, as MobileCLIP's reinforced datasets have them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kdlosses.base import DistillLoss
from kdlosses.fit import warn_unmasked
from kdlosses.inputs import Inputs, Scale, StudentArguments
from kdlosses.memo import Memo
from kdlosses.term import Computation, weighted_mean
from kdlosses.wrapped import WrappedLoss, checked_weights


class MultiCaptionLoss(WrappedLoss):
    """Several caption sets for the same images: any loss on each set, summed, with one image embedding for all.

    ``L = sum_k w_k L(v, s_k)``, v the images' embeddings, s_k those of caption set k (the real captions, synthetic
    ones, ...), L the loss within. All sets are computed in one call of the backend, and the images' gradient is summed
    before it is rounded.

    It is a sum, as in MobileCLIP: with two sets the loss and its gradient are about twice as large as with one, which
    gradient clipping notices and Adam does not. ``weights=[0.5, 0.5]`` makes it a mean. What a term says of images
    alone, as the image half of fd, counts once for each set.

    MobileCLIP's objective, ``sum_k [(1 - a) contrastive_k + a distill_k]``, is this class around
    ``MultiTeacherLoss({"contrastive": 1 - a, "affinity": a}, ...)``; affinity is its divergence plus the entropy of
    the teachers, a constant.

    Args:
        loss: any loss: `CLIPKDLoss`, `MultiTeacherLoss`, `MatryoshkaLoss`, ...
        weights: a number above zero for each caption set; by default 1 each, for any number of sets.

    Raises:
        ValueError: for weights that are not numbers above zero. Called, for lists of other lengths, and as the loss
            within, naming the caption set.

    Gradient:
        As the loss within, summed over the sets.

    Source:
        MobileCLIP (arXiv 2311.17049), MobileCLIP2 (arXiv 2508.20691).

    Example:
        Two teachers at scales of their own, a real and a synthetic caption for each image.

        >>> import torch
        >>> from kdlosses import MultiCaptionLoss, MultiTeacherLoss
        >>> _ = torch.manual_seed(0)
        >>> within = MultiTeacherLoss({"contrastive": 0.25, "affinity": 0.75}, student_dim=16, teacher_dims=[32, 24])
        >>> loss = MultiCaptionLoss(within)
        >>> images, captions = torch.randn(8, 16), [torch.randn(8, 16), torch.randn(8, 16)]
        >>> teachers = [torch.randn(8, 32), torch.randn(8, 24)]
        >>> of_captions = [[torch.randn(8, 32), torch.randn(8, 24)] for _ in captions]
        >>> list(loss(images, captions, 14.3, teachers, of_captions, [70.0, 60.0], output_dict=True))
        ['contrastive_loss', 'affinity_loss']
    """

    name = "multi_caption"

    def __init__(self, loss: DistillLoss, weights: Sequence[float] | None = None) -> None:
        super().__init__(loss)
        self.caption_weights = (
            None if weights is None else checked_weights("MultiCaptionLoss", weights, None, "caption set")
        )
        if self.caption_weights == ():
            raise ValueError("weights of MultiCaptionLoss must name at least one caption set, got none")
        self._watch()

    def forward(  # type: ignore[override]  # sequences where the other losses take one caption's
        self,
        image_features: Tensor,
        text_features: Sequence[Tensor],
        logit_scale: Scale,
        dist_image_features: Any = None,
        dist_text_features: Sequence[Any] | None = None,
        dist_logit_scale: Any = None,
        output_dict: bool = False,
        logit_bias: Scale | None = None,
        dist_logit_bias: Any = None,
        *,
        masked_image_features: Tensor | None = None,
        group_ids: Tensor | None = None,
    ) -> Tensor | dict[str, Tensor]:
        """Compute the loss of one batch; row i of every tensor belongs to image i.

        Args:
            image_features: ``[B, Ds]`` student image embeddings.
            text_features: a list of ``[B, Ds]`` student text embeddings, one for each caption set.
            logit_scale: as the loss within takes it.
            dist_image_features: likewise.
            dist_text_features: a list as long as ``text_features``, each as the loss within takes it: a tensor, or for
                `MultiTeacherLoss` a list of one for each teacher.
            dist_logit_scale: as the loss within takes it.
            output_dict: return the weighted terms by name, each summed over the sets, instead of their sum.
            logit_bias: as the loss within takes it.
            dist_logit_bias: likewise.
            masked_image_features: likewise.
            group_ids: likewise; the same for every caption set.

        Returns:
            As `DistillLoss`.

        Raises:
            ValueError: as `DistillLoss`, naming the caption set, and for lists of other lengths.
        """
        warn_unmasked(self.weights, self._needs, self.variant, masked_image_features)
        student: Any = (image_features, text_features, logit_scale, logit_bias)
        teacher = (dist_image_features, dist_text_features, dist_logit_scale, dist_logit_bias)
        return self._compute(lambda: self._read(student, teacher, masked_image_features, groups=group_ids), output_dict)

    def _read(
        self,
        student: StudentArguments,
        teacher: Any,
        masked: Tensor | None,
        targets: Tensor | None = None,
        groups: Tensor | None = None,
    ) -> list[Inputs]:
        """Validated inputs, all of the first caption set, then all of the next; they differ in their texts alone."""
        texts = self._listed("text_features", student[1], None)
        teacher_texts = self._listed("dist_text_features", teacher[1], len(texts))
        found: list[list[Inputs]] = []
        for number, (text, teacher_text) in enumerate(zip(texts, teacher_texts, strict=True)):
            of_set = (student[0], text, *student[2:]), (teacher[0], teacher_text, *teacher[2:])
            try:
                found.append(self.loss._read(*of_set, masked, targets, groups))
            except ValueError as error:
                raise ValueError(f"caption set {number}: {error}") from error
        wide = any(each[0].dtype == torch.float64 for each in found)
        first = [one.in_dtype(torch.float64 if wide else torch.float32) for one in found[0]]
        return [
            shared.changed(text=one.text, teacher_text=one.teacher_text)
            for each in found
            for shared, one in zip(first, each, strict=True)
        ]

    def _listed(self, name: str, given: Any, count: int | None) -> Sequence[Any]:
        if given is None and count is not None:
            return [None] * count
        if not isinstance(given, (list, tuple)) or not given:
            got = "an empty list" if isinstance(given, (list, tuple)) else type(given).__name__
            raise ValueError(f"{name} must be a list with an entry for each caption set, got {got}")
        if count is not None and len(given) != count:
            raise ValueError(f"{name} has {len(given)} caption sets but text_features has {count}")
        if self.caption_weights is not None and len(given) != len(self.caption_weights):
            raise ValueError(f"{name} has {len(given)} caption sets, but there are {len(self.caption_weights)} weights")
        return given

    def _sets(self, inputs: list[Inputs]) -> list[list[Inputs]]:
        size = self.loss.teacher_count
        return [inputs[start : start + size] for start in range(0, len(inputs), size)]

    def computations(
        self, inputs: list[Inputs], layers: nn.Module | None = None, memo: Memo | None = None
    ) -> list[Computation]:
        """See `DistillLoss`."""
        memo = Memo() if memo is None else memo
        sets = self._sets(inputs)
        parts = [self.loss.computations(one, layers, memo) for one in sets]
        weights = [1.0] * len(sets) if self.caption_weights is None else self.caption_weights
        return [weighted_mean(term, weights) for term in zip(*parts, strict=True)]

    def new_layers(self, student_dim: int) -> nn.Module:
        """See `DistillLoss`."""
        found: nn.Module = self.loss.new_layers(student_dim)
        return found

    def _described(self, inputs: list[Inputs]) -> dict[str, str]:
        sets = self._sets(inputs)
        told = {"the number of caption sets": str(len(sets))}
        for number, one in enumerate(sets):
            for key, value in super()._described(one).items():
                told[f"{key} of caption set {number}" if "text_features" in key else key] = value
        return told

    def extra_repr(self) -> str:
        """The weights, for ``print(loss)``."""
        return "" if self.caption_weights is None else f"weights={self.caption_weights}"
