"""`WrappedLoss`: a loss that applies another one several times within one call of a backend."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal, overload

from torch import Tensor, nn

from kdlosses.base import DistillLoss
from kdlosses.guard import Guard
from kdlosses.inputs import Inputs

# What those who are handed a loss may read of it.
_SETTINGS = (
    "weights",
    "term_options",
    "_scheduled",
    "variant",
    "backend",
    "check",
    "group",
    "reduction",
    "student_dim",
    "_needs",
    "_terms",
    "_towers",
    "_backend",
)


class WrappedLoss(DistillLoss):
    """What the wrappers have in common: settings, guard and call are those of the loss within.

    Args:
        loss: any loss; it becomes a part of this one.
    """

    def __init__(self, loss: DistillLoss) -> None:
        nn.Module.__init__(self)
        name = type(self).__name__
        if not isinstance(loss, DistillLoss):
            raise ValueError(f"{name} takes a loss of kdlosses, as in {name}(CRDLoss(), ...), got {_kind(loss)}")
        if any(type(one) is type(self) for one in loss.modules()):
            raise ValueError(f"{name} takes a loss that is not in a {name} already")
        kept = [term for layers in loss.modules() for term in getattr(layers, "term_state", ())]
        if kept:
            raise ValueError(f"{name} cannot take terms that keep a state between calls, which are here: {kept[0]}")
        self.loss: Any = loss  # called with what it takes, whichever loss it is
        for setting in _SETTINGS:
            setattr(self, setting, getattr(loss, setting))
        self.teacher_dim = getattr(loss, "teacher_dim", None)

    def _watch(self) -> None:
        """One guard for all parameters."""
        self._unwatch_within()
        self._guard = Guard(self)

    def _unwatch_within(self) -> None:
        if self.loss._guard is not None:
            self.loss._guard.remove()
            self.loss._guard = None

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._unwatch_within()

    @property
    def teacher_count(self) -> int:
        """See `DistillLoss`."""
        count: int = self.loss.teacher_count
        return count

    def _described(self, inputs: list[Inputs]) -> dict[str, str]:
        told: Mapping[str, str] = super()._described(inputs)
        return {**told, "the loss": f"{told['the loss']} with {self.extra_repr()}"}

    if TYPE_CHECKING:  # called as the loss within is: with lists where that takes lists

        @overload  # type: ignore[override]  # so any arguments
        def __call__(self, *args: Any, output_dict: Literal[False] = ..., **more: Any) -> Tensor: ...

        @overload
        def __call__(self, *args: Any, output_dict: Literal[True], **more: Any) -> dict[str, Tensor]: ...

        def __call__(self, *args: Any, **more: Any) -> Any: ...


def checked_weights(name: str, weights: Sequence[float], count: int | None, each: str) -> tuple[float, ...]:
    """``weights`` as floats.

    Raises:
        ValueError: unless they are ``count`` finite numbers above zero.
    """
    if isinstance(weights, str) or not isinstance(weights, Sequence) or not weights:
        raise ValueError(f"weights of {name} must be a list of numbers, one for each {each}, got {weights!r}")
    if count is not None and len(weights) != count:
        raise ValueError(f"weights of {name} must have {count} entries, one for each {each}, got {len(weights)}")
    for number, weight in enumerate(weights):
        real = isinstance(weight, Real) and not isinstance(weight, bool) and math.isfinite(weight)
        if not real or weight <= 0:
            raise ValueError(f"weight {number} of {name} must be a finite number above zero, got {weight!r}")
    return tuple(map(float, weights))


def _kind(value: object) -> str:
    return value.__name__ if isinstance(value, type) else type(value).__name__
