"""`DistillLoss`, the module behind every loss: open_clip's keywords, validated, into a weighted sum of terms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, overload

import torch
from torch import Tensor, nn

from kdlosses import backends
from kdlosses.backends.contract import Backend
from kdlosses.checks import REDUCTIONS, check_known, check_variant, check_width
from kdlosses.distributed.shard import check_group
from kdlosses.entries import Terms, entries_of
from kdlosses.fit import check_call, check_device, check_dims, warn_unmasked
from kdlosses.guard import Guard
from kdlosses.inputs import Inputs, StudentArguments, TeacherArguments, read_inputs
from kdlosses.layers import MAX_LOGIT_SCALE, Layers, add_layers
from kdlosses.options import Options
from kdlosses.state import add_states
from kdlosses.weighted_sum import WeightedSum

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


class DistillLoss(WeightedSum):
    """A weighted sum of terms: validates, normalises, projects, and returns a scalar or a dict of weighted terms.

    The base class of all losses; what a term computes is for its `Term` to say.

    Args:
        weights: ``{term: weight}``, terms from ``kdlosses.available_terms()``, weights >= 0, at least one above zero.
        options: ``{term: {option: value}}``, what the terms may be told besides.
        terms: ``{name: {"loss": term, option: value, ...}}``: names of your own for terms with options, to be given
            weights, so that one term may be in a sum several times.
        variant: ``"paper"`` for the published formulas, ``"released"`` for what the released code computes.
        student_dim: student embedding width Ds; needed where a projection or fusion layer is.
        teacher_dim: teacher embedding width Dt; needed with ``student_dim``.
        backend: ``"auto"``, a name of ``kdlosses.backends.available()``, or one made with options by
            ``kdlosses.backends.create``; an explicit choice never falls back.
        check: raise ValueError on non-finite features or scales; costs a host sync a call, and a graph break under
            ``torch.compile``, so off by default.
        group: the processes that share a batch: ``"auto"`` for torch.distributed's default group where it is
            initialised when the loss is called, None to keep the loss within its process, or a process group. N
            processes with B/N rows each return, on every process, the value for all B rows; once DDP has averaged
            them, all gradients are those for all B rows, also the loss's own (wrap it in DDP, or see
            `kdlosses.share_parameters`). It is then computed eagerly, also under ``torch.compile``.
        reduction: ``"mean"``, or ``"none"`` for ``[B]``, each pair's own value in place of their mean: to select or
            weigh data by. With several processes these are this process's pairs, each against everybody's; the
            gradients are those of ``"mean"`` where the mean of them is differentiated.

    Raises:
        ValueError: for an unknown variant, backend or group, or missing widths where the loss has layers of its own.

    Example:
        Every loss is called alike, with open_clip's keywords.

        >>> import torch
        >>> from kdlosses import DistillLoss, build
        >>> loss = build("icl", student_dim=16, teacher_dim=32)
        >>> isinstance(loss, DistillLoss)
        True
        >>> _ = torch.manual_seed(0)
        >>> student = {"image_features": torch.randn(8, 16), "text_features": torch.randn(8, 16), "logit_scale": 14.3}
        >>> teacher = {"dist_image_features": torch.randn(8, 32), "dist_text_features": torch.randn(8, 32)}
        >>> list(loss(**student, **teacher, output_dict=True))
        ['icl_loss']
        >>> loss(**student)
        Traceback (most recent call last):
        ValueError: ICLLoss needs the teacher's outputs; missing: dist_image_features, dist_text_features
    """

    name: ClassVar[str] = "distill"
    weights: dict[str, float]

    def __init__(
        self,
        weights: Mapping[str, float],
        *,
        options: Options | None = None,
        terms: Terms | None = None,
        variant: str = "paper",
        student_dim: int | None = None,
        teacher_dim: int | None = None,
        backend: str | Backend = "auto",
        check: bool = False,
        group: str | ProcessGroup | None = "auto",
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        check_variant(variant)
        check_group(group)
        check_known("reduction", reduction, REDUCTIONS)
        self._backend = backends.resolve(backend)
        self._terms = entries_of(weights, options, terms, variant)
        self.weights = {name: entry.weight for name, entry in self._terms.items()}
        self.term_options = {name: dict(entry.options) for name, entry in self._terms.items() if entry.options}
        self._scheduled = {name: entry.scheduled() for name, entry in self._terms.items()}
        self.variant, self.backend, self.check, self.group, self.reduction = variant, backend, check, group, reduction
        self._needs = frozenset().union(*(entry.needs for entry in self._terms.values()))
        self._towers = frozenset[str]().union(*(entry.towers for entry in self._terms.values()))
        aligned = [entry.term.projected(entry.options) for entry in self._terms.values() if "aligned" in entry.needs]
        self._projected = frozenset[str]().union(*aligned)
        self._add_layers(student_dim, teacher_dim)
        self._guard = Guard(self)

    def _add_layers(self, student_dim: int | None, teacher_dim: int | None) -> None:
        check_width("student_dim", student_dim)
        check_width("teacher_dim", teacher_dim)
        self.student_dim, self.teacher_dim = student_dim, teacher_dim
        check_dims(type(self).__name__, self._needs, self.variant, student_dim, teacher_dim)
        add_layers(self, self._needs, student_dim, teacher_dim, self._projected)
        self._add_states(self, teacher_dim)

    def _add_states(self, layers: Layers, teacher_dim: int | None) -> None:
        add_states(layers, {name: one.term.state(one.options, teacher_dim) for name, one in self._terms.items()})

    def new_layers(self, student_dim: int) -> nn.Module:
        """Layers and scales as this loss's own, for another width of the student's; see ``computations``."""
        check_dims(type(self).__name__, self._needs, self.variant, student_dim, self.teacher_dim)
        layers = Layers()
        add_layers(layers, self._needs, student_dim, self.teacher_dim, self._projected)
        return layers

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]  # torch has no types for it
        self._guard = Guard(self)  # copies and pickles have new parameters

    @property
    def teacher_count(self) -> int:
        """How many entries ``computations`` takes."""
        return 1

    @overload
    def forward(
        self,
        image_features: Tensor,
        text_features: Tensor | None,
        logit_scale: float | Tensor,
        dist_image_features: Tensor | None = ...,
        dist_text_features: Tensor | None = ...,
        dist_logit_scale: float | Tensor | None = ...,
        output_dict: Literal[False] = ...,
        logit_bias: float | Tensor | None = ...,
        dist_logit_bias: float | Tensor | None = ...,
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
        logit_scale: float | Tensor,
        dist_image_features: Tensor | None = ...,
        dist_text_features: Tensor | None = ...,
        dist_logit_scale: float | Tensor | None = ...,
        output_dict: Literal[True] = ...,
        logit_bias: float | Tensor | None = ...,
        dist_logit_bias: float | Tensor | None = ...,
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
        logit_scale: float | Tensor,
        dist_image_features: Tensor | None = ...,
        dist_text_features: Tensor | None = ...,
        dist_logit_scale: float | Tensor | None = ...,
        output_dict: bool = ...,
        logit_bias: float | Tensor | None = ...,
        dist_logit_bias: float | Tensor | None = ...,
        *,
        masked_image_features: Tensor | None = ...,
        bank_targets: Tensor | None = ...,
        group_ids: Tensor | None = ...,
    ) -> Tensor | dict[str, Tensor]: ...

    def forward(
        self,
        image_features: Tensor,
        text_features: Tensor | None,
        logit_scale: float | Tensor,
        dist_image_features: Tensor | None = None,
        dist_text_features: Tensor | None = None,
        dist_logit_scale: float | Tensor | None = None,
        output_dict: bool = False,
        logit_bias: float | Tensor | None = None,
        dist_logit_bias: float | Tensor | None = None,
        *,
        masked_image_features: Tensor | None = None,
        bank_targets: Tensor | None = None,
        group_ids: Tensor | None = None,
    ) -> Tensor | dict[str, Tensor]:
        """Compute the loss of one batch of pairs; row i of every tensor is the same image-text pair.

        Args:
            image_features: ``[B, Ds]`` student image embeddings, any floating dtype, normalised or not.
            text_features: ``[B, Ds]`` student text embeddings; None where no term reads texts (see `FDLoss`).
            logit_scale: the student's 1/temperature, already exponentiated: a number or a tensor ``[]`` or ``[1]``.
            dist_image_features: ``[B, Dt]`` teacher image embeddings; receive no gradient.
            dist_text_features: ``[B, Dt]`` teacher text embeddings; receive no gradient. None as the student's.
            dist_logit_scale: the teacher's 1/temperature; receives no gradient.
            output_dict: return the weighted terms by name instead of their sum.
            logit_bias: the student's, a number or a tensor ``[]`` or ``[1]``; needed by the sigmoid terms, which give
                it a gradient. The softmax terms ignore it: a constant added to all logits cannot change a softmax.
            dist_logit_bias: the teacher's, likewise; receives no gradient.
            masked_image_features: ``[B, Ds]`` student embeddings of masked images, read by mfd alone.
            bank_targets: ``[B]`` or ``[B, P]`` integers, each pair's keys in a bank, read by `BankLoss` alone; -1 for
                none.
            group_ids: ``[B]`` integers, read by contrastive, icl and siglip: pairs that have the same one are each
                other's positives too, as captions of one image are. By default each pair is a group of its own.

        Returns:
            A 0-d tensor, float32 (float64 if any features are), in nats for the softmax and sigmoid terms; or, with
            ``output_dict``, ``{"<term>_loss": weighted 0-d tensor}`` whose values sum to it. A loss made with
            ``reduction="none"`` returns ``[B]`` in place of each. All arithmetic is in that dtype, also under autocast;
            call ``backward`` outside autocast, as torch asks, or it rounds gradients. Matrix products follow torch's
            float32 precision: where a trainer allows TF32, logits near 100 lose digits.

        Raises:
            ValueError: for a wrong shape, dtype, device, row count or width, or a missing teacher argument; with
                several processes on all of them, where one failed or where rows, widths, dtypes or parameters differ.
        """
        warn_unmasked(self.weights, self._needs, self.variant, masked_image_features)
        student = (image_features, text_features, logit_scale, logit_bias)
        teacher = (dist_image_features, dist_text_features, dist_logit_scale, dist_logit_bias)
        more = bank_targets, group_ids
        return self._compute(lambda: self._read(student, teacher, masked_image_features, *more), output_dict)

    if TYPE_CHECKING:
        __call__ = forward  # nn.Module's own says Any

    @torch.no_grad()
    def clamp_scales(self) -> None:
        """Bring the learnable scales back to at most ln 100; call it after ``optimizer.step()``.

        Beyond that they are clamped where they are used and get no gradient, so one that overshoots would stay there.
        The released variant's scales are not logarithms and run free, as in its code.
        """
        if self.variant == "paper":
            for name, parameter in self.named_parameters():
                if name.endswith("logit_scale"):
                    # A hair below: in float32 ln 100 itself rounds up, to beyond the clamp.
                    parameter.clamp_(max=MAX_LOGIT_SCALE - 1e-6)

    def _read(
        self,
        student: StudentArguments,
        teacher: TeacherArguments,
        masked: Tensor | None,
        targets: Tensor | None = None,
        groups: Tensor | None = None,
    ) -> list[Inputs]:
        """Validated inputs, one for each teacher."""
        reads = "text" in self._towers
        inputs = read_inputs(
            *student, *teacher, masked, self.check, texts=reads, group_ids=groups, bank_targets=targets
        )
        check_call(type(self).__name__, self._needs, inputs, self.student_dim, self.teacher_dim)
        return self._checked([inputs])

    def _checked(self, inputs: list[Inputs]) -> list[Inputs]:
        """The same, once they are where the loss is and its states can take them."""
        check_device(type(self).__name__, self.named_parameters(), inputs[0], self.named_buffers())
        for state, one in self._states(inputs):
            state.check(type(self).__name__, one, self.check)
        return inputs
