"""`MatryoshkaLoss`: a student whose embedding may be cut short (Kusupati et al., arXiv 2205.13147)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from kdlosses.base import DistillLoss
from kdlosses.checks import check_features, check_width
from kdlosses.fit import check_device
from kdlosses.inputs import Inputs, StudentArguments
from kdlosses.memo import Memo
from kdlosses.term import Computation, weighted_mean
from kdlosses.wrapped import WrappedLoss, checked_weights


class MatryoshkaLoss(WrappedLoss):
    """Matryoshka: any loss on prefixes of the student's embeddings, so that a user may later keep as many as they need.

    ``L = sum_m w_m L(unit(z[:, :m]))``, z the student's image and text embeddings before normalising, L the loss
    within. The teacher's embeddings stay whole. All prefixes are computed in one call of the backend; the dense one
    makes the teacher's logits once for all of them.

    A prefix is as wide as no other, so each has projections, fusion layers and learnable scales of its own
    (``prefixes["64"]``); those of the widest are the loss's (``loss``), which is built for that width.

    Called as the loss within is, with lists where that takes lists; ``output_dict`` has its keys, each term summed
    over the prefixes with their weights, so that logs and totals stay as they are.

    Args:
        loss: for the widest prefix: `CLIPKDLoss`, `MultiTeacherLoss`, `MultiCaptionLoss` or any other. Where it has
            ``student_dim``, that is the last of ``dims``.
        dims: widths of the prefixes, ascending. The last may be the whole embedding; what is beyond it is not read.
        weights: a number above zero for each of ``dims``. By default 1, as in the paper: the loss and its gradient are
            then about ``len(dims)`` times as large as for one width, which gradient clipping notices and Adam does not.

    Raises:
        ValueError: for widths that do not ascend, other numbers of weights, a loss of another width, and terms that
            project (fd, icl, ...) in a loss that was not told both widths. Called, for embeddings narrower than the
            widest prefix, and as the loss within.

    Gradient:
        As the loss within, summed over the prefixes: number i of an embedding learns from all prefixes that reach it.

    Source:
        Matryoshka representation learning (arXiv 2205.13147).

    Example:
        >>> import torch
        >>> from kdlosses import CLIPKDLoss, MatryoshkaLoss
        >>> _ = torch.manual_seed(0)
        >>> student, teacher = (torch.randn(8, 16), torch.randn(8, 16)), (torch.randn(8, 32), torch.randn(8, 32))
        >>> within = CLIPKDLoss({"crd": 1.0, "fd": 100.0}, student_dim=16, teacher_dim=32)
        >>> loss = MatryoshkaLoss(within, dims=[4, 8, 16])
        >>> list(loss(*student, 14.3, *teacher, 100.0, output_dict=True))
        ['crd_loss', 'fd_loss']
        >>> loss.prefixes["4"].visual_proj
        Linear(in_features=4, out_features=32, bias=True)
    """

    name = "matryoshka"

    def __init__(self, loss: DistillLoss, dims: Sequence[int], weights: Sequence[float] | None = None) -> None:
        super().__init__(loss)
        self.dims = _checked(dims)
        given = [1.0] * len(self.dims) if weights is None else weights
        self.dim_weights = checked_weights("MatryoshkaLoss", given, len(self.dims), "of dims")
        self._check_fit()
        self.student_dim = None  # embeddings may be wider than what is read
        self.prefixes = nn.ModuleDict({str(dim): loss.new_layers(dim) for dim in self.dims[:-1]})
        self._watch()

    def _check_fit(self) -> None:
        within, widest = self.loss, self.dims[-1]
        if within.student_dim not in (None, widest):
            raise ValueError(
                f"MatryoshkaLoss has dims up to {widest} but {type(within).__name__} was built with "
                f"student_dim={within.student_dim}; build it for the widest prefix: student_dim={widest}"
            )
        projecting = self.reading("aligned")
        if projecting and len(self.dims) > 1 and within.student_dim is None:
            raise ValueError(
                f"MatryoshkaLoss gives each prefix a projection to the teacher's width for {', '.join(projecting)}; "
                f"build {type(within).__name__} with student_dim={widest} and the teacher's width, teacher_dim"
            )

    def _read(
        self,
        student: StudentArguments,
        teacher: Any,
        masked: Tensor | None,
        targets: Tensor | None = None,
        groups: Tensor | None = None,
    ) -> list[Inputs]:
        image, text, *numbers = student
        cut = [self._widest(image, "image_features"), self._widest(text, "text_features")]
        masked = None if masked is None else self._widest(masked, "masked_image_features")
        found: list[Inputs] = self.loss._read((*cut, *numbers), teacher, masked, targets, groups)
        check_device(type(self).__name__, self.named_parameters(), found[0])
        return found

    def _widest(self, value: Any, name: str) -> Any:
        if isinstance(value, (list, tuple)):  # a tensor for each caption set
            return [self._widest(one, f"{name}[{number}]") for number, one in enumerate(value)]
        if value is None and "text" not in self._towers:
            return None
        check_features(name, value)
        widest = self.dims[-1]
        if value.shape[1] < widest:
            raise ValueError(
                f"MatryoshkaLoss reads prefixes of up to {widest} numbers, but {name} has width {value.shape[1]}; "
                "leave larger dims out"
            )
        return value if value.shape[1] == widest else value[:, :widest]

    def computations(
        self, inputs: list[Inputs], layers: nn.Module | None = None, memo: Memo | None = None
    ) -> list[Computation]:
        """See `DistillLoss`; ``layers`` are this loss's own."""
        memo = Memo() if memo is None else memo
        own = [*self.prefixes.values(), None]
        parts = [
            self.loss.computations([one.first(dim, memo) for one in inputs], these, memo)
            for dim, these in zip(self.dims, own, strict=True)
        ]
        return [weighted_mean(term, self.dim_weights) for term in zip(*parts, strict=True)]

    def extra_repr(self) -> str:
        """The widths and weights, for ``print(loss)``."""
        return f"dims={self.dims}, weights={self.dim_weights}"


def _checked(dims: Sequence[int]) -> tuple[int, ...]:
    if isinstance(dims, str) or not isinstance(dims, Sequence) or not dims:
        raise ValueError(f"dims must be a list of widths, as in [64, 128, 256], got {dims!r}")
    for number, dim in enumerate(dims):
        check_width(f"dims[{number}]", 0 if dim is None else dim)
    if any(one >= other for one, other in pairwise(dims)):
        raise ValueError(f"dims must ascend, each above the one before it, got {list(dims)}")
    return tuple(dims)
