"""What a study says, in sentences made from its numbers."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

from harness.study.config import Sweep, Variant
from harness.study.ranking import Order, Pair, compare, correlation, seed_deviation
from harness.study.results import Findings, Result
from harness.study.score import score
from harness.study.table import name


def reading(found: Findings) -> str:
    """Markdown: the order and where it differs from the published one, combinations, similarity, sensitivity."""
    parts = [_methods(found), _swept_methods(found), _combinations(found), _similarity(found), *_sweeps(found)]
    return "\n\n".join(part for part in parts if part) + "\n"


def by_score(found: Findings) -> dict[str, list[float]]:
    """Each variant's mean of rank_by, for each seed."""
    return {variant.name: found.scores(variant) for variant in found.study.variants}


def by_headline(found: Findings) -> dict[str, list[float]]:
    """Each variant's headline metric, for each seed."""
    return {variant.name: found.values(variant, found.study.headline) for variant in found.study.variants}


def best_methods(found: Findings) -> dict[str, Variant]:
    """Each method, in the form that its sweep has found best."""
    return {one.name: found.study.variant(found.better.get(one.name, one.name)) for one in found.study.methods}


def _methods(found: Findings) -> str:
    order = compare(found, by_score(found))
    if order is None:
        return ""
    head = compare(found, by_headline(found))
    assert head is not None  # the same methods are published, whatever they are ordered by
    deviation = seed_deviation([found.scores(variant) for variant in found.study.variants])
    noise = "" if deviation is None else f" The standard deviation over seeds is {deviation:.1f} points, pooled."
    return (
        f"**Order of the methods.** Here, by the mean of {_metrics(found)}: {chain(order.ours)}. "
        f"Published: {chain(order.published)}. "
        f"Rank correlation with the published order {order.spearman:+.2f} (by {name(found.study.headline)} alone "
        f"{head.spearman:+.2f}: {chain(head.ours)}).{noise} {_differences(order)}"
    )


def _swept_methods(found: Findings) -> str:
    """The order with each method at the value that its sweep has found best."""
    moved = [method for method in found.study.methods if method.name in found.better]
    if not moved:
        return ""
    best = best_methods(found)
    scores = {name: found.scores(variant) for name, variant in best.items()}
    order = compare(found, scores)
    if order is None:
        return ""
    told = ", ".join(f"{best[method.name].label} {mean(scores[method.name]):.1f}" for method in moved)
    return (
        f"**With the weights that the sweeps found best on the tuning sets** ({told}): {chain(order.ours)}; rank "
        f"correlation with the published order {order.spearman:+.2f}. {_differences(order)}"
    )


def chain(methods: list[Variant]) -> str:
    """An order in one line."""
    return " > ".join(method.label for method in methods)


def _differences(order: Order) -> str:
    if not order.reversed:
        return f"All {len(order.pairs)} pairs of methods stand in the published order."
    clear = [pair for pair in order.reversed if pair.is_clear]
    unclear = [pair for pair in order.reversed if not pair.is_clear]
    text = f"Of {len(order.pairs)} pairs of methods {len(order.reversed)} stand the other way round than published"
    if clear:
        text += f"; on every seed: {'; '.join(map(_told, clear))}"
    if unclear:
        text += f"; not on every seed: {'; '.join(map(_told, unclear))}"
    return text + "."


def _told(pair: Pair) -> str:
    seeds = "" if pair.of == 1 or pair.is_clear else f", {pair.seeds} of {pair.of}"
    return f"{pair.below.label} above {pair.above.label} ({-pair.lead:+.1f}{seeds})"


def _combinations(found: Findings) -> str:
    ranked = found.ranked()
    together = [variant for variant in ranked if variant.kind == "combination"]
    methods = {variant.name for variant in found.study.methods}
    if not together or not methods:
        return ""
    swept = [found.study.variant(row) for owner, row in found.better.items() if owner in {one.name for one in together}]
    singles = methods | {row for owner, row in found.better.items() if owner in methods}
    best = next(variant for variant in ranked if variant.name in singles)
    top = next(variant for variant in ranked if variant in together or variant in swept)
    lead, seeds = _lead(found, top, best)
    others = f"; with the swept weight: {_gains(found, swept)}" if swept else ""
    return (
        f"**Combinations**, gain over the baseline: {_gains(found, together)}{others}; the best single method: "
        f"{_gains(found, [best])}. The best combination, {top.label}, is {lead:+.1f} from it ({seeds})."
        f"{_published(top, best)}"
    )


def _gains(found: Findings, variants: list[Variant]) -> str:
    base = mean(found.scores(found.study.baseline))
    return "; ".join(f"{variant.label} {mean(found.scores(variant)) - base:+.1f}" for variant in variants)


def _published(combination: Variant, method: Variant) -> str:
    if combination.published is None or method.published is None:
        return ""
    return f" Published: {combination.label} {combination.published:.2f}, {method.label} {method.published:.2f}."


def _lead(found: Findings, one: Variant, other: Variant) -> tuple[float, str]:
    leads = [a - b for a, b in zip(found.scores(one), found.scores(other), strict=True)]
    return mean(leads), f"ahead on {sum(lead > 0 for lead in leads)} of {len(leads)} seeds"


def _similarity(found: Findings) -> str:
    told = []
    for what in ("cosine", "alignment"):
        measured = {v.name: found.similarity(v, what) for v in found.study.variants}
        points = {name: value for name, value in measured.items() if value is not None}
        known = [v for v in found.study.variants if v.name in points]
        everywhere = correlation([(points[v.name], mean(found.scores(v))) for v in known])
        singles = [v for v in known if v.kind in ("baseline", "method")]
        alone = correlation([(points[v.name], mean(found.scores(v))) for v in singles])
        if everywhere is not None:
            among = "" if alone is None else f" ({alone:+.2f} among baseline and methods)"
            top = max(known, key=lambda v: points[v.name])
            told.append(f"{what} {everywhere:+.2f}{among}, the highest {points[top.name]:.2f} with {top.label}")
    if not told:
        return ""
    return (
        "**The better the method, the more similar the features?** Rank correlation over variants between the mean "
        f"score and the similarity of student's and teacher's features: {'; '.join(told)}. Cosine compares features as "
        "they are; alignment (linear CKA) forgives a rotation, so it is fair to methods that never see the teacher's "
        "coordinates."
    )


def _sweeps(found: Findings) -> list[str]:
    return [_sweep(found, sweep, runs) for sweep, runs in zip(found.study.sweeps, found.sweeps, strict=True)]


def _sweep(found: Findings, sweep: Sweep, runs: Sequence[Result]) -> str:
    points = [score(run["metrics"], found.study.rank_by) for run in runs]
    best = max(range(len(points)), key=points.__getitem__)
    told = ", ".join(f"{value:g}: {point:.1f}" for value, point in zip(sweep.values, points, strict=True))
    base = tuned_score(found, found.study.baseline)
    beside = "" if base is None else f"; the baseline has {base:.1f}"
    return (
        f"**{found.study.variant(sweep.variant).label}, {sweep.key}** (tuning sets, one seed): {told}. Best at "
        f"{sweep.values[best]:g}; the range is {max(points) - min(points):.1f} points{beside}."
    )


def tuned_score(found: Findings, variant: Variant) -> float | None:
    """A variant's score on the tuning sets with its chosen settings."""
    chosen = found.chosen[variant.name]
    runs = [run for run in found.tuning if run["variant"] == variant.name and run["set"] == chosen]
    return score(runs[0]["metrics"], found.study.rank_by) if runs else None


def _metrics(found: Findings) -> str:
    *most, last = map(name, found.study.rank_by)
    return f"{', '.join(most)} and {last}" if most else last
