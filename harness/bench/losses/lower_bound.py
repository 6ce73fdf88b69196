"""The least number of matrix products that a loss can be computed with, forward and backward.

A relation is a B x B matrix of similarities. Each product is one matmul, B x D x B, D being the width of its
relation:

- forward, one product: queries times keys;
- backward, one product for each side that gets a gradient: queries and keys (`pair`), queries alone where the keys are
  the teacher's (`cross`), none for the teacher's own relation (`teacher`).

Kept, the matrix stays from forward to backward. Recomputed, it never exists whole and the backward makes its tiles once
more: one product more for each relation.

GD (paper) has, for student and teacher, R = softmax of the rows and of the columns, minus the positives, scaled:

- forward, two products more a side: R @ keys and R.T @ queries are the two gradients; 4 in all;
- backward, four more for the student, with H the gradients that arrive at those two: H @ keys.T and queries @ H.T (to
  R), and R.T @ H and R @ H (past R, to the embeddings); from R to the logits to the embeddings are the relation's own
  two;
- kept: student 3 + teacher 1 + 8 = 12. Recomputed: the softmaxes need their sums before R can be used, one sweep more
  over student and teacher; the way back through them needs sums over the products to R, one sweep of three more. So
  12 + 1 (student) + 1 (teacher) + 1 (student, backward) + 3 = 18.

The released GD takes each direction's two gradients apart: 8 forward and 8 backward in place of 4 and 4, and a sweep of
five more in place of three: 20 kept, 28 recomputed. Elementwise work, projections and fusion layers are not counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class LowerBound(NamedTuple):
    """Matrix products when the matrices are kept, and when they are recomputed in the backward pass."""

    kept: float
    recomputed: float


# By what it takes: forward 1, backward one for each side that learns; recomputed one more.
PAIR, CROSS, TEACHER = LowerBound(3, 4), LowerBound(2, 3), LowerBound(1, 2)

# The relations that a term reads: terms that name the same one share it. "aligned" is "student" where widths are equal.
RELATIONS: dict[str, dict[str, LowerBound]] = {
    "contrastive": {"student": PAIR},
    "crd": {"student": PAIR, "teacher": TEACHER},
    "affinity": {"student": PAIR, "teacher": TEACHER},
    "icl": {"cross_i2t": CROSS, "cross_t2i": CROSS},
    "cross_kd": {"teacher": TEACHER, "cross_i2t": CROSS, "cross_t2i": CROSS},
    "vrd": {"vertical_image": CROSS, "vertical_text": CROSS},
    "xrd": {"cross_i2t": CROSS, "cross_t2i": CROSS},
    "afd": {"fused": PAIR},
    "gd": {"aligned": PAIR, "teacher": TEACHER},
    "siglip": {"student": PAIR},
    "sigmoid_kd": {"student": PAIR, "teacher": TEACHER},
    "fd": {},
    "mfd": {},
}
GD_PRODUCTS = {"paper": LowerBound(8, 12), "released": LowerBound(16, 22)}
TEACHER_WIDE = {"teacher", "aligned", "cross_i2t", "cross_t2i", "vertical_image", "vertical_text"}


def matmul_lower_bound(terms: Iterable[str], variant: str, dim: int, teacher_dim: int) -> LowerBound | None:
    """The bound for a sum of terms, in products B x `dim` x B; None for a term that is not counted here."""
    terms = list(terms)
    if not set(terms) <= RELATIONS.keys():
        return None
    wide = teacher_dim / dim
    parts = [_times(floor, factor) for floor, factor in _relations(terms, wide)]
    if "gd" in terms:
        parts.append(_times(GD_PRODUCTS[variant], wide))
    return LowerBound(sum(part.kept for part in parts), sum(part.recomputed for part in parts))


def _relations(terms: Iterable[str], wide: float) -> list[tuple[LowerBound, float]]:
    """Each relation once, with the width of its products."""
    found = {name: floor for term in terms for name, floor in RELATIONS[term].items()}
    if wide == 1 and "student" in found:
        found.pop("aligned", None)
    return [(floor, wide if name in TEACHER_WIDE else 1.0) for name, floor in found.items()]


def _times(floor: LowerBound, factor: float) -> LowerBound:
    return LowerBound(floor.kept * factor, floor.recomputed * factor)
