"""Narrative of a study: its findings in sentences generated from the numbers."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

from harness.study.config import Sweep, Variant
from harness.study.ranking import (
    MethodPair,
    OrderComparison,
    compare_order,
    correlation,
    headline_values,
    methods_at_best_value,
    score_values,
    seed_deviation,
)
from harness.study.results import RunRecord, StudyResults, mean_score
from harness.study.results_table import metric_label


def narrative(results: StudyResults) -> str:
    """Markdown: measured and published order of the methods, combinations, similarity, sensitivity."""
    parts = [_order_of_methods(results), _order_at_best_values(results), _combinations(results), _similarity(results)]
    parts += [_sweep(results, sweep, runs) for sweep, runs in zip(results.study.sweeps, results.sweeps, strict=True)]
    return "\n\n".join(part for part in parts if part) + "\n"


def order_text(methods: list[Variant]) -> str:
    """An order in one line, such as "FD > ICL > CRD"."""
    return " > ".join(method.label for method in methods)


def _order_of_methods(results: StudyResults) -> str:
    order = compare_order(results, score_values(results))
    if order is None:
        return ""
    by_headline = compare_order(results, headline_values(results))
    assert by_headline is not None  # the published numbers are the same
    deviation = seed_deviation([results.scores(variant) for variant in results.study.variants])
    noise = "" if deviation is None else f" The standard deviation over seeds is {deviation:.1f} points, pooled."
    return (
        f"**Order of the methods.** Here, by the mean of {_rank_metrics(results)}: {order_text(order.measured)}. "
        f"Published: {order_text(order.published)}. "
        f"Rank correlation with the published order {order.spearman:+.2f} (by {metric_label(results.study.headline)} "
        f"alone {by_headline.spearman:+.2f}: {order_text(by_headline.measured)}).{noise} {_reversed_pairs(order)}"
    )


def _order_at_best_values(results: StudyResults) -> str:
    """The order with each method at its sweep's best value."""
    changed = [method for method in results.study.methods if method.name in results.better]
    if not changed:
        return ""
    best = methods_at_best_value(results)
    scores = {name: results.scores(variant) for name, variant in best.items()}
    order = compare_order(results, scores)
    if order is None:
        return ""
    rows = "; ".join(f"{best[method.name].label}: {mean(scores[method.name]):.1f}" for method in changed)
    return (
        f"**With the weights that are best on the tuning sets** ({rows}): {order_text(order.measured)}; rank "
        f"correlation with the published order {order.spearman:+.2f}. {_reversed_pairs(order)}"
    )


def _reversed_pairs(order: OrderComparison) -> str:
    if not order.reversed:
        return f"All {len(order.pairs)} pairs of methods are in the published order."
    agreeing = [pair for pair in order.reversed if pair.all_agree]
    mixed = [pair for pair in order.reversed if not pair.all_agree]
    text = f"{len(order.reversed)} of {len(order.pairs)} pairs of methods are reversed relative to the published order"
    if agreeing:
        text += f"; on every seed: {'; '.join(map(_pair_text, agreeing))}"
    if mixed:
        text += f"; not on every seed: {'; '.join(map(_pair_text, mixed))}"
    return text + "."


def _pair_text(pair: MethodPair) -> str:
    seeds = "" if pair.num_seeds == 1 or pair.all_agree else f", {pair.num_agreeing} of {pair.num_seeds}"
    return f"{pair.lower.label} above {pair.higher.label} ({-pair.difference:+.1f}{seeds})"


def _combinations(results: StudyResults) -> str:
    study, ranked = results.study, results.ranked()
    combinations = [variant for variant in ranked if variant.kind == "combination"]
    methods = {variant.name for variant in study.methods}
    if not combinations or not methods:
        return ""
    names = {variant.name for variant in combinations}
    swept = [study.variant(better) for name, better in results.better.items() if name in names]
    singles = methods | {better for name, better in results.better.items() if name in methods}
    method = next(variant for variant in ranked if variant.name in singles)
    top = next(variant for variant in ranked if variant in combinations or variant in swept)
    with_swept = f"; with the swept weight: {_gains(results, swept)}" if swept else ""
    return (
        f"**Combinations**, gain over the baseline: {_gains(results, combinations)}{with_swept}; the best single "
        f"method: {_gains(results, [method])}. The best combination, {top.label}, scores "
        f"{_difference(results, top, method)}.{_published(top, method)}"
    )


def _gains(results: StudyResults, variants: list[Variant]) -> str:
    base = mean(results.scores(results.study.baseline))
    return "; ".join(f"{variant.label} {mean(results.scores(variant)) - base:+.1f}" for variant in variants)


def _published(combination: Variant, method: Variant) -> str:
    if combination.published is None or method.published is None:
        return ""
    return f" Published: {combination.label} {combination.published:.2f}, {method.label} {method.published:.2f}."


def _difference(results: StudyResults, top: Variant, method: Variant) -> str:
    differences = [a - b for a, b in zip(results.scores(top), results.scores(method), strict=True)]
    wins = sum(difference > 0 for difference in differences)
    return f"{mean(differences):+.1f} points relative to it (wins on {wins} of {len(differences)} seeds)"


def _similarity(results: StudyResults) -> str:
    sentences = []
    for measure in ("cosine", "alignment"):
        measured = {v.name: results.similarity(v, measure) for v in results.study.variants}
        values = {name: value for name, value in measured.items() if value is not None}
        known = [v for v in results.study.variants if v.name in values]
        overall = correlation([(values[v.name], mean(results.scores(v))) for v in known])
        singles = [v for v in known if v.kind in ("baseline", "method")]
        among_singles = correlation([(values[v.name], mean(results.scores(v))) for v in singles])
        if overall is not None:
            among = "" if among_singles is None else f" ({among_singles:+.2f} among baseline and methods)"
            top = max(known, key=lambda v: values[v.name])
            sentences.append(f"{measure} {overall:+.2f}{among}, highest for {top.label} at {values[top.name]:.2f}")
    if not sentences:
        return ""
    return (
        "**Are better methods more similar to the teacher?** Rank correlation over variants between the mean score and "
        f"the similarity of student's and teacher's features: {'; '.join(sentences)}. Cosine compares the features "
        "directly; alignment (linear CKA) is invariant to rotation, so it is fair to methods that do not see the "
        "teacher's coordinates."
    )


def _sweep(results: StudyResults, sweep: Sweep, runs: Sequence[RunRecord]) -> str:
    scores = [mean_score(run["metrics"], results.study.rank_by) for run in runs]
    best = max(range(len(scores)), key=scores.__getitem__)
    listed = ", ".join(f"{value:g}: {score:.1f}" for value, score in zip(sweep.values, scores, strict=True))
    base = results.tuning_score(results.study.baseline)
    baseline = "" if base is None else f"; the baseline has {base:.1f}"
    return (
        f"**{results.study.variant(sweep.variant).label}, {sweep.key}** (tuning sets, one seed): {listed}. Best at "
        f"{sweep.values[best]:g}; the range is {max(scores) - min(scores):.1f} points{baseline}."
    )


def _rank_metrics(results: StudyResults) -> str:
    *most, last = map(metric_label, results.study.rank_by)
    return f"{', '.join(most)} and {last}" if most else last
