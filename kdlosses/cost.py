"""The least number of matrix products that a loss can be computed with, read off the requests of its terms.

A relation is a B x B matrix of similarities. Each product is one matmul, B x D x B, D being the width of its relation:

- forward, one product: queries times keys;
- backward, one product for each side that gets a gradient: both for the student's own, the queries alone where the keys
  are the teacher's, none for the teacher's own relation.

Kept, the matrix stays from forward to backward. Recomputed, it never exists whole and the backward makes its tiles once
more: one product more for each relation. Requests about the same rows share a relation.

A cross-entropy's gradients, with R = softmax of the rows and of the columns, minus the positives, scaled:

- forward, two products more: R @ keys and R.T @ queries are the two gradients;
- backward, four more where the relation learns, with H the gradients that arrive at those two: H @ keys.T and
  queries @ H.T (to R), and R.T @ H and R @ H (past R, to the embeddings); from R to the logits to the embeddings are
  the relation's own two;
- recomputed, where it learns: one more sweep for the sums that R needs, and one of three products for the sums that the
  way back through the softmax needs, of two more for each further gradient of the same relation.

Elementwise work, projections, fusion layers and products with a bank's keys, whose number is not the batch's, are not
counted.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from kdlosses.base import DistillLoss
from kdlosses.inputs import read_inputs
from kdlosses.relation import Relation
from kdlosses.requests import CrossEntropyGrad, Request


@dataclass(frozen=True)
class MatrixProducts:
    """Products B x D x B, D the student's width: when the matrices are kept, and when the backward recomputes them."""

    kept: float
    recomputed: float


def least_products(loss: DistillLoss, student_dim: int, teacher_dim: int) -> MatrixProducts:
    """The least products of one call of ``loss``, forward and backward.

    Args:
        loss: for one teacher, on the meta device.
        student_dim, teacher_dim: widths of the call.
    """

    def rows(width: int, learns: bool) -> torch.Tensor:
        return torch.empty(2, width, device="meta", requires_grad=learns)

    student = rows(student_dim, True), rows(student_dim, True), 1.0, 0.0
    teacher = rows(teacher_dim, False), rows(teacher_dim, False), 1.0, 0.0
    inputs = read_inputs(*student, *teacher, None, check=False)
    with torch.enable_grad():
        requests = [request for one in loss.computations([inputs]) for request in one.requests]
    kept = recomputed = 0.0
    for relation, gradients in _relations(requests):
        sides = relation.queries.values.requires_grad + relation.keys.values.requires_grad
        products = 1 + sides + gradients * (6 if sides else 2)
        again = 1 + (2 + 2 * gradients if gradients and sides else 0)
        width = relation.queries.values.shape[1] / student_dim
        kept, recomputed = kept + products * width, recomputed + (products + again) * width
    return MatrixProducts(kept, recomputed)


def _relations(requests: list[Request]) -> list[tuple[Relation, int]]:
    """Each relation once, whatever its scale and side, and how many times its cross-entropy's gradient is asked for."""
    found: dict[frozenset[int], tuple[Relation, int]] = {}
    for request in requests:
        for relation in request.kept():
            one = relation.computed
            key = frozenset({id(one.queries), id(one.keys)})
            found[key] = one, found.get(key, (one, 0))[1] + isinstance(request, CrossEntropyGrad)
    return list(found.values())
