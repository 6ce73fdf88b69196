"""Losses by name: every module in ``kdlosses.losses`` registers the class it defines."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from kdlosses.checks import check_known
from kdlosses.views import NEEDS

if TYPE_CHECKING:
    from kdlosses.base import DistillLoss

_LOSSES: dict[str, type[DistillLoss]] = {}
_Loss = TypeVar("_Loss", bound="type[DistillLoss]")


def register(loss: _Loss) -> _Loss:
    """Class decorator: make ``loss`` known under its ``name``."""
    if loss.name in _LOSSES:
        raise ValueError(f"a loss named {loss.name!r} is registered already: {_LOSSES[loss.name].__qualname__}")
    if not loss.needs <= NEEDS:
        raise ValueError(
            f"{loss.__qualname__}.needs has {sorted(loss.needs - NEEDS)}; known: {', '.join(sorted(NEEDS))}"
        )
    _LOSSES[loss.name] = loss
    return loss


def available_losses() -> list[str]:
    """The names that ``build`` takes, sorted."""
    return sorted(_LOSSES)


def available_terms() -> list[str]:
    """The names that ``CLIPKDLoss(weights=...)`` takes, sorted."""
    return sorted(name for name, loss in _LOSSES.items() if loss.is_term)


def term_class(name: str) -> type[DistillLoss]:
    """The class of the term called ``name``.

    Raises:
        ValueError: for an unknown name; lists the known ones.
    """
    check_known("loss term", name, available_terms())
    return _LOSSES[name]


def terms_reading(terms: Iterable[str], need: str) -> tuple[str, ...]:
    """Those of ``terms`` that read ``need``, a word of ``kdlosses.views.NEEDS``."""
    return tuple(term for term in terms if need in term_class(term).needs)


def build(name: str, **kwargs: Any) -> DistillLoss:
    """The loss called ``name``, constructed with ``kwargs``.

    Args:
        name: one of ``available_losses()``.
        kwargs: the loss's constructor keywords.

    Returns:
        A new loss; `DistillLoss.forward` says how to call it.

    Raises:
        ValueError: for an unknown name; lists the known ones and the nearest.

    Example:
        >>> from kdlosses import build
        >>> build("affinity", teacher_scale=100.0)
        AffinityLoss(1 affinity(teacher_scale=100), variant='paper', backend='auto')
        >>> build("ckd")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: loss 'ckd' is unknown; known: afd, affinity, clip_kd, ...; did you mean 'crd'?
    """
    check_known("loss", name, available_losses())
    return _LOSSES[name](**kwargs)
