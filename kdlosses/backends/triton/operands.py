"""The two sides of a tile of logits as the kernels take them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from kdlosses.relation import Relation

HALF = (torch.bfloat16, torch.float16)


class Cosines(NamedTuple):
    """What ``scale * q_hat k_hat^T`` is made from.

    Args:
        queries: ``[R, D]`` float32, bfloat16 or float16, rows dense; row i times ``query_factors[i]`` has length 1.
        query_factors: ``[R]`` float32.
        keys: ``[C, D]``, likewise; its dtype may be another.
        key_factors: ``[C]`` float32.
        scale: ``[]`` float32.
        precision: of products of float32 operands, ``"ieee"`` or ``"tf32"``.
    """

    queries: Tensor
    query_factors: Tensor
    keys: Tensor
    key_factors: Tensor
    scale: Tensor
    precision: str

    @property
    def shape(self) -> tuple[int, int]:
        """R and C."""
        return len(self.queries), len(self.keys)

    @property
    def storage(self) -> torch.dtype:
        """How a tile of their derivative is stored: bfloat16 has the range for it, float16 has not."""
        both = self.queries.dtype == self.keys.dtype == torch.bfloat16
        return torch.bfloat16 if both else torch.float32

    @property
    def exact(self) -> str:
        """The precision of a product that must not lose what a tile in float32 holds, whatever the inputs' dtype.

        Three products in tf32 keep it as a float32 product does: a 16-bit operand is one tf32 number, a float32 two.
        """
        return "tf32x3" if self.queries.dtype in HALF and self.keys.dtype in HALF else self.precision

    def tile(self, rows: slice, cols: slice) -> Cosines:
        """The part between these rows of the queries and those of the keys."""
        return Cosines(
            self.queries[rows],
            self.query_factors[rows],
            self.keys[cols],
            self.key_factors[cols],
            self.scale,
            self.precision,
        )


def cosines_of(relation: Relation, precision: str) -> Cosines:
    """The operands of a whole relation; ``precision`` is what was asked for where an input is float32.

    A product of two 16-bit inputs is exact in tf32, of whichever two formats they are.
    """
    queries, keys = relation.queries, relation.keys
    exact = queries.values.dtype in HALF and keys.values.dtype in HALF
    return Cosines(
        _dense(queries.values),
        queries.inverse_norms,
        _dense(keys.values),
        keys.inverse_norms,
        relation.scale,
        "tf32" if exact else precision,
    )


def _dense(values: Tensor) -> Tensor:
    """``values``, copied only where the entries of a row do not lie side by side."""
    return values if values.stride(1) == 1 else values.contiguous()
