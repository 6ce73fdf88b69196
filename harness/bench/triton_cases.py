"""Every launch of the triton backend, on tensors without memory: what there is to compile, and for which products."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from kdlosses.backends.triton import launch, second_launch, sigmoid_launch
from kdlosses.backends.triton.operands import Cosines
from kdlosses.backends.triton.sigmoid_launch import Logits
from kdlosses.tiles.coefficients import Coefficients, Softened
from kdlosses.tiles.sigmoid import ByTarget

SIZE, WIDTH, TEACHER_WIDTH = 8192, 512, 768


class Product(NamedTuple):
    """The inputs' dtype and the precision of products that are made in float32."""

    dtype: torch.dtype
    precision: str


PRODUCTS = {
    "bfloat16": Product(torch.bfloat16, "tf32"),
    "float16": Product(torch.float16, "tf32"),
    "float32 tf32": Product(torch.float32, "tf32"),
    "float32 ieee": Product(torch.float32, "ieee"),
}


def _empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def _side(product: Product, width: int) -> Cosines:
    rows = _empty(SIZE, width, dtype=product.dtype)
    return Cosines(rows, _empty(SIZE), rows, _empty(SIZE), _empty(), product.precision)


def _coefficients(vectors: int) -> Coefficients:
    part = Softened(*(_empty(SIZE) for _ in range(vectors)))
    return Coefficients(part, part, _empty(SIZE))


def _stats(product: Product) -> None:
    launch.stats(_side(product, WIDTH), None, _empty(1, SIZE), 0, rows=True, cols=True)


def _stats_teacher(product: Product, entropy: bool = False) -> None:
    student, teacher = _side(product, WIDTH), _side(product, TEACHER_WIDTH)
    launch.stats(student, teacher, _empty(2, SIZE), 0, rows=True, cols=True, entropy=entropy)


def _weights(product: Product) -> None:
    student = _side(product, WIDTH)
    launch.weights(student, None, _coefficients(2), 0, _tile(student), scale=True)


def _weights_teacher(product: Product) -> None:
    student, teacher = _side(product, WIDTH), _side(product, TEACHER_WIDTH)
    launch.weights(student, teacher, _coefficients(4), 0, _tile(student), scale=True)


def _matmul(product: Product) -> None:
    student = _side(product, WIDTH)
    launch.add_product(_tile(student), student.keys, _empty(SIZE), _empty(SIZE, WIDTH), student.precision)


def _matmul_transposed(product: Product) -> None:
    student = _side(product, WIDTH)
    launch.add_product(_tile(student).T, student.queries, _empty(SIZE), _empty(SIZE, WIDTH), student.precision)


def _matmul_exact(product: Product) -> None:
    student = _side(product, WIDTH)
    launch.add_product(_empty(SIZE, SIZE), student.keys, _empty(SIZE), _empty(SIZE, WIDTH), student.exact)


def _second_stats(product: Product) -> None:
    second_launch.second_stats(_side(product, WIDTH), _variation(), _coefficients(2), 0)


def _second_weights(product: Product) -> None:
    student = _side(product, WIDTH)
    means, out = (_empty(SIZE), _empty(SIZE)), (_tile(student), _tile(student))
    second_launch.second_weights(student, _variation(), _coefficients(2), means, 0, out, scale=True)


def _sigmoid_sums(product: Product, taught: bool = False) -> None:
    sigmoid_launch.sigmoid_sums(_logits(product, WIDTH), _taught(product, taught), 0, labels=True)


def _sigmoid_weights(product: Product, taught: bool = False) -> None:
    student, upstream = _logits(product, WIDTH), ByTarget(_empty(SIZE), _empty(SIZE) if taught else None)
    out = _tile(student.cosines)
    sigmoid_launch.sigmoid_weights(student, _taught(product, taught), upstream, 0, out, scale=True, bias=True)


def _logits(product: Product, width: int) -> Logits:
    return Logits(_side(product, width), _empty())


def _taught(product: Product, taught: bool) -> Logits | None:
    return _logits(product, TEACHER_WIDTH) if taught else None


def _tile(student: Cosines) -> Tensor:
    return _empty(SIZE, SIZE, dtype=student.storage)


def _variation() -> second_launch.Variation:
    rows = _empty(SIZE, WIDTH)
    return second_launch.Variation(rows, rows, _empty(SIZE), _empty(SIZE))


LAUNCHES: dict[str, Callable[[Product], None]] = {
    "stats": _stats,
    "stats_teacher": _stats_teacher,
    "stats_teacher entropy": partial(_stats_teacher, entropy=True),
    "weights": _weights,
    "weights_teacher": _weights_teacher,
    "matmul": _matmul,
    "matmul transposed": _matmul_transposed,
    "matmul exact": _matmul_exact,
    "second_stats": _second_stats,
    "second_weights": _second_weights,
    "sigmoid_sums": _sigmoid_sums,
    "sigmoid_sums_teacher": partial(_sigmoid_sums, taught=True),
    "sigmoid_weights": _sigmoid_weights,
    "sigmoid_weights_teacher": partial(_sigmoid_weights, taught=True),
}
