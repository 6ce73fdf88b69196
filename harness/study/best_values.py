"""Best values of the sweeps, and the extra variant for each that differs from the variant's own value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.study.config import Study, Sweep, Variant
from harness.study.results import RunRecord, mean_score


def best_value_variants(
    study: Study, chosen: dict[str, dict[str, Any]], swept: Sequence[Sequence[RunRecord]]
) -> list[tuple[str, Variant]]:
    """Variants to add to the study: one for each sweep whose best value is not the variant's own.

    Args:
        study: with its sweeps.
        chosen: the tuned settings of each variant.
        swept: the runs of each sweep.

    Returns:
        Pairs of the swept variant's name and the new variant at the best value, in ascending order of score.
    """
    improved: list[tuple[float, Sweep, float]] = []
    for sweep, runs in zip(study.sweeps, swept, strict=True):
        scores = [mean_score(run["metrics"], study.rank_by) for run in runs]
        best = max(range(len(scores)), key=scores.__getitem__)
        if sweep.values[best] != own_value(study, chosen, sweep):
            improved.append((scores[best], sweep, sweep.values[best]))
    # Two sweeps of one variant may both improve it: the dict made of these pairs keeps the last, the better one.
    improved.sort(key=lambda item: item[0])
    return [(sweep.variant, _variant_at(study.variant(sweep.variant), sweep, value)) for _, sweep, value in improved]


def own_value(study: Study, chosen: dict[str, dict[str, Any]], sweep: Sweep) -> float | None:
    """The value of the swept key in the variant's own runs; None if the base recipe's value applies."""
    settings = {**study.set, **study.variant(sweep.variant).set, **chosen[sweep.variant]}
    if sweep.key in settings:
        return settings[sweep.key]
    section, _, leaf = sweep.key.rpartition(".")
    inside = settings.get(section)
    return inside.get(leaf) if isinstance(inside, dict) else None


def _variant_at(variant: Variant, sweep: Sweep, value: float) -> Variant:
    leaf = sweep.key.rpartition(".")[2]
    is_weight = sweep.key.startswith("loss.weights.")
    # A combination has several weights, so its label names the swept one.
    setting = leaf if not is_weight else leaf.upper() if variant.kind == "combination" else "weight"
    update = {
        "name": f"{variant.name}-{value:g}".replace("+", ""),
        "label": f"{variant.label}, {setting} {value:g}",
        "kind": "other",
        "set": {**variant.set, sweep.key: value},
        "published": None,
    }
    return variant.model_copy(update=update)
