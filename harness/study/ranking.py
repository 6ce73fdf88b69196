"""Rank correlation of the measured order of the methods with the published one, and the pairs that are reversed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import mean, variance

from scipy.stats import kendalltau, spearmanr

from harness.study.config import Variant
from harness.study.results import StudyResults


@dataclass(frozen=True)
class MethodPair:
    """Two methods, ordered by their published numbers.

    Attributes:
        higher: the one with the higher published number.
        lower: the one with the lower published number.
        difference: measured score of `higher` minus that of `lower`, mean over seeds; negative if the pair is reversed.
        num_agreeing: number of seeds on which the difference has the sign of its mean.
        num_seeds: number of seeds.
    """

    higher: Variant
    lower: Variant
    difference: float
    num_agreeing: int
    num_seeds: int

    @property
    def all_agree(self) -> bool:
        """Whether the difference has the same sign on every seed."""
        return self.num_agreeing == self.num_seeds


@dataclass(frozen=True)
class OrderComparison:
    """Measured and published order of the methods.

    Attributes:
        measured: methods by measured score, best first.
        published: methods by published number, best first.
        pairs: every two methods with different published numbers.
        spearman: Spearman correlation of the measured means with the published numbers.
        kendall: Kendall correlation of the same.
    """

    measured: list[Variant]
    published: list[Variant]
    pairs: list[MethodPair]
    spearman: float
    kendall: float

    @property
    def reversed(self) -> list[MethodPair]:
        """The pairs whose measured order is not the published one, largest difference first."""
        return sorted((pair for pair in self.pairs if pair.difference < 0), key=lambda pair: pair.difference)


def score_values(results: StudyResults) -> dict[str, list[float]]:
    """Each variant's mean of rank_by, one value per seed."""
    return {variant.name: results.scores(variant) for variant in results.study.variants}


def headline_values(results: StudyResults) -> dict[str, list[float]]:
    """Each variant's headline metric, one value per seed."""
    return {variant.name: results.values(variant, results.study.headline) for variant in results.study.variants}


def methods_at_best_value(results: StudyResults) -> dict[str, Variant]:
    """For each method, the variant at its sweep's best value, or the method itself."""
    study = results.study
    return {method.name: study.variant(results.better.get(method.name, method.name)) for method in study.methods}


def compare_order(results: StudyResults, values: dict[str, list[float]]) -> OrderComparison | None:
    """Compare the measured order of the methods with the published one.

    Args:
        results: the study.
        values: what to order by: the name of each method -> one value per seed.

    Returns:
        None if fewer than three methods have a published number.
    """
    known = [(variant, variant.published) for variant in results.study.methods if variant.published is not None]
    if len(known) < 3:
        return None
    methods, published = [method for method, _ in known], [number for _, number in known]
    means = [mean(values[method.name]) for method in methods]
    pairs = [
        _pair(one, other, values) if number > another else _pair(other, one, values)
        for (one, number), (other, another) in combinations(known, 2)
        if number != another
    ]
    return OrderComparison(
        measured=sorted(methods, key=lambda method: -mean(values[method.name])),
        published=[method for method, _ in sorted(known, key=lambda item: -item[1])],
        pairs=pairs,
        spearman=float(spearmanr(means, published).statistic),
        kendall=float(kendalltau(means, published).statistic),
    )


def correlation(points: Sequence[tuple[float, float]]) -> float | None:
    """Spearman's rank correlation of (x, y) points; None for fewer than three, or if x or y is constant."""
    if len(points) < 3 or any(len(set(side)) == 1 for side in zip(*points, strict=True)):
        return None
    return float(spearmanr(*zip(*points, strict=True)).statistic)


def seed_deviation(values: Sequence[Sequence[float]]) -> float | None:
    """Standard deviation over seeds, pooled over variants; None with one seed."""
    several = [variance(seeds) for seeds in values if len(seeds) > 1]
    return math.sqrt(mean(several)) if several else None


def _pair(higher: Variant, lower: Variant, values: dict[str, list[float]]) -> MethodPair:
    differences = [a - b for a, b in zip(values[higher.name], values[lower.name], strict=True)]
    difference = mean(differences)
    num_agreeing = sum(item * difference > 0 for item in differences)
    return MethodPair(higher, lower, difference, num_agreeing, len(differences))
