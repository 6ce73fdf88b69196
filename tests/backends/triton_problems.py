"""Operands for the triton backend's kernels, and what the kernels are held against: plain formulas in float64."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from kdlosses.tiles.coefficients import Coefficients, Softened
from tests.problems import seeded

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SCALE, TEACHER_SCALE = 14.3, 20.0
TEACHER_WIDTH = 7  # of the teacher's rows: another number of steps than the student's take


@dataclass(frozen=True)
class Tile:
    """A tile of a relation: its size, the widths and dtypes of its sides, and which diagonal its positives are on."""

    height: int
    width: int
    dim: int
    queries: torch.dtype = torch.float32
    keys: torch.dtype = torch.float32
    diagonal: int = 0

    def side(self, seed: int, dim: int, scale: float, *dtypes: torch.dtype) -> Side:
        generator = seeded(seed)
        rows = []
        for count, dtype in zip((self.height, self.width), dtypes, strict=True):
            lengths = 0.3 + 2.7 * torch.rand(count, 1, generator=generator)
            rows.append(apart((lengths * torch.randn(count, dim, generator=generator)).to(DEVICE, dtype)))
        return Side(*rows, torch.tensor(scale, device=DEVICE))

    @cached_property
    def student(self) -> Side:
        return self.side(1, self.dim, SCALE, self.queries, self.keys)

    @cached_property
    def teacher(self) -> Side:
        return self.side(2, TEACHER_WIDTH, TEACHER_SCALE, torch.float32, torch.bfloat16)

    @cached_property
    def positive(self) -> Tensor:
        rows, cols = torch.arange(self.height), torch.arange(self.width)
        return (cols[None, :] - rows[:, None] == self.diagonal).to(DEVICE)

    def vector(self, seed: int, length: int) -> Tensor:
        return (0.1 + torch.rand(length, generator=seeded(seed))).to(DEVICE)


def apart(rows: Tensor) -> Tensor:
    """The same rows with gaps between them, in which a number that is read and counted shows."""
    wide = torch.full((len(rows), rows.shape[1] + 3), torch.nan, dtype=rows.dtype, device=rows.device)
    wide[:, :-3] = rows
    return wide[:, :-3]


class Side:
    """Queries and keys with the factors that make unit rows of them."""

    def __init__(self, queries: Tensor, keys: Tensor, scale: Tensor) -> None:
        self.queries, self.keys, self.scale = queries, keys, scale
        self.query_factors, self.key_factors = (1 / rows.float().norm(dim=1) for rows in (queries, keys))

    @cached_property
    def cosines(self) -> Tensor:
        queries, keys = (
            rows.double() * factors.double()[:, None]
            for rows, factors in ((self.queries, self.query_factors), (self.keys, self.key_factors))
        )
        return queries @ keys.T

    @property
    def logits(self) -> Tensor:
        return self.scale.double() * self.cosines

    @property
    def factors(self) -> Tensor:
        """What a stored tile is multiplied by."""
        return self.scale.double() * self.query_factors.double()[:, None] * self.key_factors.double()


def coefficients(tile: Tile, rows: bool, cols: bool, teacher: bool) -> Coefficients:
    """Vectors as the shared code makes them: maxima of the logits, and weights of any size."""
    parts = []
    for dim, length, wanted in ((1, tile.height, rows), (0, tile.width, cols)):
        own = (tile.student.logits.amax(dim).float(), tile.vector(3 + dim, length))
        taught = (tile.teacher.logits.amax(dim).float(), tile.vector(5 + dim, length)) if teacher else (None, None)
        parts.append(Softened(*own, *taught) if wanted else None)
    return Coefficients(*parts, -tile.vector(7, tile.height))


def soft(part: Softened | None, logits: Tensor, dim: int, teacher: bool = False) -> Tensor:
    """``w exp(z - m)`` of one direction."""
    if part is None:
        return torch.zeros_like(logits)
    m, w = (part.m_t, part.w_t) if teacher else (part.m, part.w)
    return w.double().unsqueeze(dim) * (logits - m.double().unsqueeze(dim)).exp()
