"""Short table of a study for a README: the methods in the published order with their measured scores."""

from __future__ import annotations

from statistics import mean

from harness.study.config import Variant
from harness.study.narrative import order_text
from harness.study.ranking import OrderComparison, compare_order, methods_at_best_value, score_values
from harness.study.results import StudyResults
from harness.study.results_table import gain_over_baseline


def readme_table(results: StudyResults) -> str:
    """A table of baseline, methods and published combinations, and two sentences; empty without published numbers."""
    order = compare_order(results, score_values(results))
    if order is None:
        return ""
    best = methods_at_best_value(results)
    scores = {name: results.scores(variant) for name, variant in best.items()}
    swept = compare_order(results, scores) if results.better else None
    header = ["", "published", "here", "gain", *(["weight swept", "gain"] if swept else [])]
    lines = [header, ["---", *["---:"] * (len(header) - 1)]]
    variants = results.study.variants
    combinations = [one for one in variants if one.kind == "combination" and one.published is not None]
    for variant in [results.study.baseline, *order.published, *combinations]:
        lines.append(_row(results, variant, order, swept))
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return f"{table}\n{_sentences(order, swept)}\n"


def _row(results: StudyResults, variant: Variant, order: OrderComparison, swept: OrderComparison | None) -> list[str]:
    published = "" if variant.published is None else f"{variant.published:.2f}{_rank(variant, order.published)}"
    here = f"{mean(results.scores(variant)):.1f}{_rank(variant, order.measured)}"
    cells = [variant.label, published, here, gain_over_baseline(results, variant)]
    if swept is not None:
        best = results.study.variant(results.better.get(variant.name, variant.name))
        rank, is_changed = _rank(variant, swept.measured), best.name != variant.name
        setting = f"{best.label.removeprefix(f'{variant.label}, ')}: " if is_changed else ""
        is_shown = rank or is_changed
        score = f"{setting}{mean(results.scores(best)):.1f}{rank}"
        cells += [score, gain_over_baseline(results, best)] if is_shown else ["", ""]
    return cells


def _rank(variant: Variant, methods: list[Variant]) -> str:
    names = [method.name for method in methods]
    return f" (#{names.index(variant.name) + 1})" if variant.name in names else ""


def _sentences(order: OrderComparison, swept: OrderComparison | None) -> str:
    text = (
        f"Published order: {order_text(order.published)}. Here: {order_text(order.measured)}, rank correlation "
        f"{order.spearman:+.2f}, {len(order.reversed)} of {len(order.pairs)} pairs reversed."
    )
    if swept is None:
        return text
    return (
        f"{text} With each method's weight chosen on the tuning sets: {order_text(swept.measured)}, rank correlation "
        f"{swept.spearman:+.2f}, {len(swept.reversed)} of {len(swept.pairs)} pairs reversed."
    )
