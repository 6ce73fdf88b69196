"""Random lists of requests: relations that share rows, scales and transposes, some tensors constant, some unused."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor

from kdlosses.relation import Relation
from kdlosses.requests import (
    KL,
    CrossEntropy,
    CrossEntropyGrad,
    Request,
    SigmoidCrossEntropy,
    SoftCrossEntropy,
    SquaredDistance,
)
from kdlosses.rows import Rows, rows_of
from tests.problems import seeded

WIDTH, OTHER_WIDTH = 4, 3


@dataclass(frozen=True)
class Shape:
    """`count` rows against `others` keys, the first positive at column `offset`."""

    count: int
    others: int
    offset: int

    @property
    def square(self) -> bool:
        return self.count == self.others


@dataclass(frozen=True)
class Ask:
    """One request: its kind, and which of the relations and teachers it names, from which side."""

    kind: str
    relation: int
    teacher: int
    transposed: bool
    teacher_transposed: bool
    both: bool


@dataclass(frozen=True)
class Program:
    """Numbers from which a list of requests is made: the same ones, for the same device and dtype, each time."""

    shape: Shape
    asks: tuple[Ask, ...]
    differentiated: tuple[bool, ...]
    used: tuple[bool, ...]
    scale: float
    seed: int

    def build(self, dtype: torch.dtype, device: str) -> tuple[list[Request], list[Tensor]]:
        """The requests and the tensors they depend on."""
        world = _World(self, dtype, device)
        return [world.request(ask) for ask in self.asks], world.tensors


class _World:
    def __init__(self, program: Program, dtype: torch.dtype, device: str) -> None:
        self._generator, self._wanted = seeded(program.seed), list(program.differentiated)
        self._dtype, self._device, self._shape = dtype, device, program.shape
        self.tensors: list[Tensor] = []
        count, others, offset = program.shape.count, program.shape.others, program.shape.offset
        first, second = self._rows(count, WIDTH), self._rows(count, WIDTH)
        keys, scales = self._rows(others, WIDTH), [self._scale(program.scale), self._scale(9.0)]
        constants = [self._rows(count, WIDTH, False), self._rows(others, WIDTH, False)]
        narrow = [self._rows(count, OTHER_WIDTH, False), self._rows(others, OTHER_WIDTH, False)]
        self._queries, self._constant = [first, second], constants[0]
        self._relations = [
            Relation(first, keys, scales[0], offset),
            Relation(second, keys, scales[0], offset),
            Relation(first, constants[1], scales[1], offset),
            Relation(first, first if program.shape.square else keys, scales[1], offset),
        ]
        fixed = self._leaf(torch.tensor(20.0), False)
        self._bias, self._teacher_bias = self._scale(-2.0), self._leaf(torch.tensor(-4.0), False)
        self._teachers = [Relation(*pair, fixed, offset) for pair in (constants, narrow)]

    def request(self, ask: Ask) -> Request:
        if ask.kind == "distance":
            return SquaredDistance(self._queries[ask.relation % 2], self._constant)
        relation = self._turned(self._relations[ask.relation], ask.transposed)
        if ask.kind in ("kl", "soft"):
            kind = KL if ask.kind == "kl" else SoftCrossEntropy
            return kind(relation, self._turned(self._teachers[ask.teacher], ask.teacher_transposed))
        if ask.kind == "sigmoid":
            return SigmoidCrossEntropy(relation, self._bias)
        if ask.kind == "taught sigmoid":
            teacher = self._turned(self._teachers[ask.teacher], ask.teacher_transposed)
            return SigmoidCrossEntropy(relation, self._bias, teacher, self._teacher_bias)
        if ask.kind == "entropy":
            return CrossEntropy(relation)
        return CrossEntropyGrad(relation, both=ask.both and self._shape.square)

    def _turned(self, relation: Relation, transposed: bool) -> Relation:
        return relation.transposed() if transposed and self._shape.square else relation

    def _rows(self, count: int, width: int, differentiable: bool = True) -> Rows:
        values = torch.randn(count, width, generator=self._generator, dtype=torch.float64)
        values = self._leaf(values, differentiable)
        return rows_of(values, self._dtype)

    def _scale(self, value: float) -> Tensor:
        return self._leaf(torch.tensor(value), True)

    def _leaf(self, value: Tensor, differentiable: bool) -> Tensor:
        leaf = value.to(self._device, self._dtype).requires_grad_(differentiable and self._wanted.pop())
        self.tensors.append(leaf)
        return leaf


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    count = draw(st.integers(1, 5))
    more = draw(st.just(0) | st.integers(1, 3))
    return Shape(count, count + more, draw(st.integers(0, more)))


ASKS = st.builds(
    Ask,
    kind=st.sampled_from(["entropy", "kl", "soft", "gradient", "distance", "sigmoid", "taught sigmoid"]),
    relation=st.integers(0, 3),
    teacher=st.integers(0, 1),
    transposed=st.booleans(),
    teacher_transposed=st.booleans(),
    both=st.booleans(),
)
PROGRAMS = st.builds(
    Program,
    shape=shapes(),
    asks=st.lists(ASKS, min_size=1, max_size=6).map(tuple),
    differentiated=st.tuples(*[st.booleans()] * 6),
    used=st.tuples(*[st.booleans()] * 12),
    scale=st.sampled_from([1.0, 14.3, 100.0]),
    seed=st.integers(0, 2**16),
)
