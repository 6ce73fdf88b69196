"""What a sweep has found: a variant's best value, and the row that it gets where that is not its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.study.config import Study, Sweep, Variant
from harness.study.score import score

Result = dict[str, Any]


def adopted(
    study: Study, chosen: dict[str, dict[str, Any]], swept: Sequence[Sequence[Result]]
) -> list[tuple[str, Variant]]:
    """The rows that the sweeps add.

    Args:
        study: with its sweeps.
        chosen: the tuned settings of each variant.
        swept: the runs of each sweep.

    Returns:
        The name of each variant that has a better value, with a new one that has that value; best last.
    """
    found: list[tuple[float, Sweep, float]] = []
    for sweep, runs in zip(study.sweeps, swept, strict=True):
        points = [score(run["metrics"], study.rank_by) for run in runs]
        best = max(range(len(points)), key=points.__getitem__)
        if sweep.values[best] != own_value(study, chosen, sweep):
            found.append((points[best], sweep, sweep.values[best]))
    found.sort(key=lambda one: one[0])
    return [(sweep.variant, _row(study.variant(sweep.variant), sweep, value)) for _, sweep, value in found]


def own_value(study: Study, chosen: dict[str, dict[str, Any]], sweep: Sweep) -> float | None:
    """The value of the swept key in the variant's own runs; None where it is the base recipe's."""
    settings = {**study.set, **study.variant(sweep.variant).set, **chosen[sweep.variant]}
    if sweep.key in settings:
        return settings[sweep.key]
    section, _, leaf = sweep.key.rpartition(".")
    inside = settings.get(section)
    return inside.get(leaf) if isinstance(inside, dict) else None


def _row(variant: Variant, sweep: Sweep, value: float) -> Variant:
    leaf = sweep.key.rpartition(".")[2]
    is_weight = sweep.key.startswith("loss.weights.")
    # Of a combination's weights it has to be said which.
    what = leaf if not is_weight else leaf.upper() if variant.kind == "combination" else "weight"
    update = {
        "name": f"{variant.name}-{value:g}".replace("+", ""),
        "label": f"{variant.label}, {what} {value:g}",
        "kind": "other",
        "set": {**variant.set, sweep.key: value},
        "published": None,
    }
    return variant.model_copy(update=update)
