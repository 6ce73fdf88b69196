"""Weights of terms: the defaults of each variant, and what makes a set of weights wrong."""

from __future__ import annotations

from collections.abc import Mapping

from kdlosses.checks import check_variant, check_weight
from kdlosses.registry import available_terms, get_term
from kdlosses.term import Term

CLIP_KD = {"contrastive": 1.0, "crd": 1.0, "fd": 2000.0, "icl": 1.0}


def default_weights(variant: str = "paper") -> dict[str, float]:
    """Default weight of every term in ``variant``; weights of one variant mean nothing in the other.

    Args:
        variant: ``"paper"`` or ``"released"``.

    Returns:
        ``{term: weight}`` for all of ``available_terms()``.

    Raises:
        ValueError: for an unknown variant.

    Example:
        >>> from kdlosses import default_weights
        >>> default_weights()["fd"]
        2000.0
        >>> default_weights("paper")["gd"], default_weights("released")["gd"]
        (100000.0, 100000000.0)
    """
    check_variant(variant)
    return {name: get_term(name).default_weight[variant] for name in available_terms()}


def check_weights(
    weights: Mapping[str, float], variant: str, named: Mapping[str, Term] | None = None
) -> dict[str, Term]:
    """The terms that have a weight, be it zero.

    Args:
        weights: ``{name: weight}``.
        variant: ``"paper"`` or ``"released"``.
        named: terms under names of the caller's, beside the registered ones.

    Raises:
        ValueError: for an unknown term, a weight that is negative or not finite, no weight above zero, or the
            released variant's default in the paper variant, where the two differ: the paper's GD is about 1e8 times
            larger.
    """
    if not isinstance(weights, Mapping):
        raise ValueError(f"weights must map terms to numbers, as in {CLIP_KD}, got {type(weights).__name__}")
    named = {} if named is None else named
    terms = {}
    for name, weight in weights.items():
        terms[name] = named[name] if name in named else get_term(name, others=named)
        check_weight(name, weight)
    if not any(weights.values()):
        raise ValueError(f"weights must give at least one term a weight above zero, got {dict(weights)}")
    for name, term in terms.items():
        # That very number, not all above it: gd's weight grows with the batch and passes it near 30,000 pairs.
        defaults, weight = term.default_weight, weights[name]
        if variant == "paper" and weight and weight == defaults["released"] != defaults["paper"]:
            grows = term.weight_grows_by
            raise ValueError(
                f'a {name} weight of {weight:g} belongs to variant="released"; the paper\'s {name} is on another '
                f"scale: start from {defaults['paper']:g}{f' x {grows}' if grows else ''}"
            )
    return terms
