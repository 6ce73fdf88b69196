"""The study in a few lines, for a README: the methods in the published order, and where ours is another."""

from __future__ import annotations

from statistics import mean

from harness.study.config import Variant
from harness.study.ranking import Order, compare
from harness.study.reading import best_methods, by_score, chain
from harness.study.results import Findings
from harness.study.table import gain


def short(found: Findings) -> str:
    """A table of baseline, methods and published combinations, and two sentences; empty without published numbers."""
    order = compare(found, by_score(found))
    if order is None:
        return ""
    best = best_methods(found)
    swept = compare(found, {name: found.scores(variant) for name, variant in best.items()}) if found.better else None
    header = ["", "published", "here", "gain", *(["weight swept", "gain"] if swept else [])]
    lines = [header, ["---", *["---:"] * (len(header) - 1)]]
    others = [one for one in found.study.variants if one.kind == "combination" and one.published is not None]
    for variant in [found.study.baseline, *order.published, *others]:
        lines.append(_row(found, variant, order, swept))
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return f"{table}\n{_sentences(order, swept)}\n"


def _row(found: Findings, variant: Variant, order: Order, swept: Order | None) -> list[str]:
    published = "" if variant.published is None else f"{variant.published:.2f}{_place(variant, order.published)}"
    cells = [variant.label, published, f"{mean(found.scores(variant)):.1f}{_place(variant, order.ours)}"]
    cells.append(gain(found, variant))
    if swept is not None:
        other = found.study.variant(found.better.get(variant.name, variant.name))
        place, moved = _place(variant, swept.ours), other.name != variant.name
        text = f"{other.label.removeprefix(f'{variant.label}, ')}: " if moved else ""
        shown = place or moved
        cells += [f"{text}{mean(found.scores(other)):.1f}{place}", gain(found, other)] if shown else ["", ""]
    return cells


def _place(variant: Variant, methods: list[Variant]) -> str:
    names = [method.name for method in methods]
    return f" (#{names.index(variant.name) + 1})" if variant.name in names else ""


def _sentences(order: Order, swept: Order | None) -> str:
    text = (
        f"Published order: {chain(order.published)}. Here: {chain(order.ours)}, rank correlation "
        f"{order.spearman:+.2f}, {len(order.reversed)} of {len(order.pairs)} pairs the other way round."
    )
    if swept is None:
        return text
    return (
        f"{text} With each method's weight chosen on the tuning sets: {chain(swept.ours)}, {swept.spearman:+.2f}, "
        f"{len(swept.reversed)} of {len(swept.pairs)} pairs."
    )
