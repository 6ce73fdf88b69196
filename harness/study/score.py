"""What variants are chosen and ranked by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.errors import UserError

Metrics = Mapping[str, Mapping[str, float]]


def score(metrics: Metrics, rank_by: Sequence[str]) -> float:
    """The mean of the metrics named SET/METRIC.

    Raises:
        UserError: one of them was not measured.
    """
    return sum(value(metrics, name) for name in rank_by) / len(rank_by)


def value(metrics: Metrics, name: str) -> float:
    """The metric named SET/METRIC."""
    part, _, metric = name.partition("/")
    found = metrics[part].get(metric)
    if found is None:
        given = ", ".join(metrics[part])
        raise UserError(
            f"the set {part} is too small for {name}, it gives {given}; change rank_by and headline to these"
        )
    return found
