"""Losses by name: a class for those that have one, `DistillLoss` of one term for all others."""

from __future__ import annotations

from typing import Any, TypeVar

from kdlosses.base import DistillLoss
from kdlosses.registry import available_terms, get_term

_CLASSES: dict[str, type[DistillLoss]] = {}
_Loss = TypeVar("_Loss", bound="type[DistillLoss]")


def named(loss: _Loss) -> _Loss:
    """Class decorator: ``build(loss.name)`` makes one of these."""
    _CLASSES[loss.name] = loss
    return loss


def available_losses() -> list[str]:
    """The names that ``build`` takes, sorted."""
    return sorted({*_CLASSES, *available_terms()})


def build(name: str, **kwargs: Any) -> DistillLoss:
    """The loss called ``name``, constructed with ``kwargs``.

    Args:
        name: one of ``available_losses()``.
        kwargs: the loss's constructor keywords, options of its term among them.

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
    if name in _CLASSES:
        return _CLASSES[name](**kwargs)
    term = get_term(name, "loss", _CLASSES)
    own = {option: kwargs.pop(option) for option in term.options if option in kwargs}
    return DistillLoss({name: 1.0}, options={name: own}, **kwargs)
