"""Orders compared: how well ours agrees with the published one, and which pairs are the other way round."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import mean, variance

from scipy.stats import kendalltau, spearmanr

from harness.study.config import Variant
from harness.study.results import Findings


@dataclass(frozen=True)
class Pair:
    """Two methods of which the paper puts the first above the second.

    Attributes:
        above: better in the paper.
        below: worse there.
        lead: of `above` over `below` here, mean over seeds; negative where our order is the other way round.
        seeds: on how many seeds the one that leads on average leads.
        of: how many seeds there are.
    """

    above: Variant
    below: Variant
    lead: float
    seeds: int
    of: int

    @property
    def is_clear(self) -> bool:
        """Whether every seed says the same."""
        return self.seeds == self.of


@dataclass(frozen=True)
class Order:
    """Ours beside the published one.

    Attributes:
        ours: methods, best first.
        published: likewise.
        pairs: every two methods that the paper orders.
        spearman: rank correlation of our means with the published numbers.
        kendall: likewise, by pairs.
    """

    ours: list[Variant]
    published: list[Variant]
    pairs: list[Pair]
    spearman: float
    kendall: float

    @property
    def reversed(self) -> list[Pair]:
        """The pairs whose order is the other way round here, the widest first."""
        return sorted((pair for pair in self.pairs if pair.lead < 0), key=lambda pair: pair.lead)


def compare(found: Findings, values: dict[str, list[float]]) -> Order | None:
    """Our order of the methods beside the published one; None where fewer than three have a published number.

    Args:
        found: the study.
        values: what to order by, each method's number for each seed.
    """
    known = [(variant, variant.published) for variant in found.study.methods if variant.published is not None]
    if len(known) < 3:
        return None
    methods, published = [method for method, _ in known], [number for _, number in known]
    means = [mean(values[method.name]) for method in methods]
    pairs = [
        _pair(one, other, values) if number > another else _pair(other, one, values)
        for (one, number), (other, another) in combinations(known, 2)
        if number != another
    ]
    return Order(
        ours=sorted(methods, key=lambda method: -mean(values[method.name])),
        published=[method for method, _ in sorted(known, key=lambda pair: -pair[1])],
        pairs=pairs,
        spearman=float(spearmanr(means, published).statistic),
        kendall=float(kendalltau(means, published).statistic),
    )


def correlation(points: Sequence[tuple[float, float]]) -> float | None:
    """Spearman's rank correlation of pairs of numbers; None where there are too few or one side does not vary."""
    if len(points) < 3 or any(len(set(side)) == 1 for side in zip(*points, strict=True)):
        return None
    return float(spearmanr(*zip(*points, strict=True)).statistic)


def seed_deviation(values: Sequence[Sequence[float]]) -> float | None:
    """Standard deviation over seeds, pooled over variants; None with one seed."""
    several = [variance(seeds) for seeds in values if len(seeds) > 1]
    return math.sqrt(mean(several)) if several else None


def _pair(above: Variant, below: Variant, values: dict[str, list[float]]) -> Pair:
    leads = [a - b for a, b in zip(values[above.name], values[below.name], strict=True)]
    lead = mean(leads)
    return Pair(above, below, lead, sum(one * lead > 0 for one in leads), len(leads))
