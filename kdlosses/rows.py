"""Embeddings as given, with the factors that make unit rows of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

_EPSILON = 1e-12  # torch.nn.functional.normalize's: a row of zeros stays one


@dataclass(eq=False)  # compared by identity: relations that share rows share their gradient
class Rows:
    """N embeddings; row i stands for the unit vector ``inverse_norms[i] * values[i]``.

    The values stay in the dtype they came in, so that a backend may feed 16-bit rows to tensor cores as they are and
    no normalised copy outlives a tile. Backends return gradients with respect to ``values``.

    Args:
        values: ``[N, D]``, any floating dtype, not normalised.
        inverse_norms: ``[N]``, in the dtype of the computation; a constant to autograd.
    """

    values: Tensor
    inverse_norms: Tensor

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the computation."""
        return self.inverse_norms.dtype

    def constant(self) -> Rows:
        """The same rows as constants."""
        return Rows(self.values.detach(), self.inverse_norms)

    def normalized(self) -> Tensor:
        """All unit rows as one tensor that autograd differentiates, for layers that need it whole."""
        return F.normalize(self.values.to(self.dtype), dim=1, eps=_EPSILON)


def rows_of(values: Tensor, dtype: torch.dtype) -> Rows:
    """``values`` as rows of a computation in ``dtype``."""
    norms = torch.linalg.vector_norm(values.detach(), dim=1, dtype=dtype)
    return Rows(values, norms.clamp_min(_EPSILON).reciprocal())
