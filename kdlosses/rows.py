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
        of_batch: whether row i belongs to the batch's pair i, so that with several processes each has a part of them.
        parts: rows of the batch, and constant ones that every process has, where these are both (see `extended`).
        everywhere: whether these are constants that every process has whole (see `constant_rows`).
        groups: ``[N]`` integers: rows that have the same one are each other's positives; None where each is its own.
    """

    values: Tensor
    inverse_norms: Tensor
    of_batch: bool = False
    parts: tuple[Rows, Rows] | None = None
    everywhere: bool = False
    groups: Tensor | None = None

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the computation."""
        return self.inverse_norms.dtype

    def constant(self) -> Rows:
        """The same rows as constants."""
        parts = None if self.parts is None else (self.parts[0].constant(), self.parts[1])
        return Rows(self.values.detach(), self.inverse_norms, self.of_batch, parts, self.everywhere, self.groups)

    def extended(self, constants: Tensor) -> Rows:
        """These rows and then ``constants``, ``[K, D]``, the same on every process: keys beside the batch's own."""
        more = constant_rows(constants.to(self.values), self.dtype)
        values = torch.cat([self.values, more.values])
        return Rows(values, torch.cat([self.inverse_norms, more.inverse_norms]), parts=(self, more))

    def normalized(self) -> Tensor:
        """All unit rows as one tensor that autograd differentiates, for layers that need it whole."""
        return F.normalize(self.values.to(self.dtype), dim=1, eps=_EPSILON)


def rows_of(values: Tensor, dtype: torch.dtype, of_batch: bool = False, groups: Tensor | None = None) -> Rows:
    """``values`` as rows of a computation in ``dtype``."""
    norms = torch.linalg.vector_norm(values.detach(), dim=1, dtype=dtype)
    return Rows(values, norms.clamp_min(_EPSILON).reciprocal(), of_batch, groups=groups)


def constant_rows(values: Tensor, dtype: torch.dtype) -> Rows:
    """``values``, ``[K, D]``, the same on every process: keys that are no batch."""
    found = rows_of(values.detach(), dtype)
    found.everywhere = True
    return found


def autocast_device(values: Tensor) -> str:
    """What ``torch.autocast`` calls the device of ``values``; it does not know of meta, where shapes are tried out."""
    return "cpu" if values.is_meta else values.device.type
