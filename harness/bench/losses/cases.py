"""Benchmark cases: one loss by one implementation at one size, and the grid of cases of a command."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import product
from typing import Any

import torch

import kdlosses
from kdlosses import CLIPKDLoss, DistillLoss
from kdlosses.bank.state import KeyBank

# What a loss is measured with that cannot be built without options: as many keys as DSMD's queue has.
OPTIONS: dict[str, dict[str, Any]] = {"bank": {"num_keys": 8192}}
# Between the names of terms that are summed at their default weights.
PLUS = "+"
# What open_clip's DistillClipLoss computes; listed with the registered losses so that it has its equal of ours.
DISTILL_CLIP = "contrastive+crd"


@dataclass(frozen=True)
class Case:
    """One measurement.

    Args:
        loss: a registered loss, or terms joined by `+`.
        variant: `"paper"` or `"released"`.
        implementation: who computes it: a backend of kdlosses, or a baseline.
        batch: B, the pairs.
        dim: D, the student's width.
        teacher_dim: the teacher's width.
        dtype: name of the features' dtype, as `float32`.
        device: `"cpu"` or `"cuda"`.
        threads: threads that torch computes with on the CPU.
    """

    loss: str
    variant: str
    implementation: str
    batch: int
    dim: int
    teacher_dim: int
    dtype: str
    device: str
    threads: int

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype itself."""
        return getattr(torch, self.dtype)

    @property
    def wide_dtype(self) -> torch.dtype:
        """That of parameters and scales: float32, or wider where the features are."""
        return torch.promote_types(torch.float32, self.torch_dtype)

    @property
    def matrix_bytes(self) -> int:
        """The size of one B x B matrix in the features' dtype."""
        return self.batch**2 * self.torch_dtype.itemsize


CASE_FIELDS = tuple(field.name for field in fields(Case))


def known_losses() -> list[str]:
    """Every registered loss, the combined one first, and the sum that open_clip also computes."""
    names = kdlosses.available_losses()
    return [*sorted(names, key=lambda name: (name != "clip_kd", name)), DISTILL_CLIP]


def is_sum(loss: str) -> bool:
    """Whether `loss` is two or more different known terms joined by `+`."""
    terms = loss.split(PLUS)
    return 1 < len(set(terms)) == len(terms) and set(terms) <= set(kdlosses.available_terms())


def build_loss(
    loss: str, variant: str, backend: str, student_dim: int | None = None, teacher_dim: int | None = None
) -> DistillLoss:
    """The loss called `loss` of kdlosses; a sum weighs its terms as `default_weights` says."""
    keywords: dict[str, Any] = {
        "variant": variant,
        "backend": backend,
        "student_dim": student_dim,
        "teacher_dim": teacher_dim,
    }
    if PLUS not in loss:
        found = kdlosses.build(loss, **OPTIONS.get(loss, {}), **keywords)
    else:
        defaults, terms = kdlosses.default_weights(variant), loss.split(PLUS)
        own = {term: OPTIONS[term] for term in terms if term in OPTIONS}
        found = CLIPKDLoss({term: defaults[term] for term in terms}, options=own, **keywords)
    for bank in (one for one in found.modules() if isinstance(one, KeyBank)):
        bank.set_keys(*(torch.randn(bank.num_keys, bank.width) for _ in bank.sides))
    return found


def weights_of(loss: str, variant: str) -> dict[str, float]:
    """The terms of `loss` with their weights."""
    return _on_meta(loss, variant).weights


def reads_bias(case: Case) -> bool:
    """Whether a term of the case's loss takes sigmoids."""
    return bool(_on_meta(case.loss, case.variant).reading("bias"))


def _on_meta(loss: str, variant: str) -> DistillLoss:
    with torch.device("meta"):  # no numbers for its layers: they would be drawn from the caller's generator
        return build_loss(loss, variant, "auto", 1, 1)


def grid(
    pairs: Sequence[tuple[str, str]],
    batches: Sequence[int],
    dtypes: Sequence[str],
    *,
    variant: str,
    dim: int,
    teacher_dim: int,
    device: str,
    threads: int,
) -> list[Case]:
    """All cases, loss by loss and batches ascending, so that small batches can estimate large ones.

    Args:
        pairs: `(loss, implementation)` that exist; the order of losses, and of implementations within a loss, is kept.
        batches: in any order.
        dtypes: names.
        variant, dim, teacher_dim, device, threads: as in `Case`.
    """
    losses = list(dict.fromkeys(loss for loss, _ in pairs))
    return [
        Case(loss, variant, implementation, batch, dim, teacher_dim, dtype, device, threads)
        for dtype, loss, batch in product(dtypes, losses, sorted(set(batches)))
        for owner, implementation in pairs
        if owner == loss
    ]
