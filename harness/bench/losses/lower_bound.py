"""The least number of matrix products of a sum of terms: see `kdlosses.cost`, which reads them off the terms."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import torch

from harness.bench.losses.cases import OPTIONS
from kdlosses import DistillLoss
from kdlosses.cost import MatrixProducts, least_products


def matmul_lower_bound(terms: Iterable[str], variant: str, dim: int, teacher_dim: int) -> MatrixProducts:
    """The bound for a sum of terms, in products B x `dim` x B."""
    return _bound(tuple(terms), variant, dim, teacher_dim)


@cache
def _bound(terms: tuple[str, ...], variant: str, dim: int, teacher_dim: int) -> MatrixProducts:
    with torch.device("meta"):
        own = {term: OPTIONS[term] for term in terms if term in OPTIONS}
        loss = DistillLoss(
            dict.fromkeys(terms, 1.0), options=own, variant=variant, student_dim=dim, teacher_dim=teacher_dim
        )
    return least_products(loss, dim, teacher_dim)
