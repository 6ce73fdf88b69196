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


def available_losses(without_options: bool = False) -> list[str]:
    """The names that ``build`` takes, sorted.

    Args:
        without_options: those alone that need no options: a ``bank`` must be told of its keys.

    Example:
        >>> from kdlosses import available_losses
        >>> set(available_losses()) - set(available_losses(without_options=True))
        {'bank'}
    """
    terms = available_terms(without_options)
    return sorted({*terms, *(name for name in _CLASSES if name not in available_terms())})


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
        ValueError: loss 'ckd' is unknown; known: afd, affinity, bank, ...; did you mean 'crd'?
    """
    if name in _CLASSES:
        return _CLASSES[name](**kwargs)
    term = get_term(name, "loss", _CLASSES)
    own = {option: kwargs.pop(option) for option in term.options if option in kwargs}
    return DistillLoss({name: 1.0}, options={name: own}, **kwargs)
