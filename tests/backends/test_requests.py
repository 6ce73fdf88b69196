"""Every backend's answers to single requests: relations whose rows are a part of the batch, and confident rows."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from kdlosses import backends
from kdlosses.relation import Pairs, Relation
from kdlosses.requests import KL, CrossEntropy, CrossEntropyGrad
from kdlosses.rows import Rows, rows_of

USABLE = [name for name, reason in backends.available().items() if reason is None]
each_backend = pytest.mark.parametrize("backend", [backends.resolve(name) for name in USABLE], ids=USABLE)


def rows(count: int, width: int, seed: int) -> Rows:
    generator = torch.Generator().manual_seed(seed)
    return rows_of(torch.randn(count, width, generator=generator, dtype=torch.float64), torch.float64)


def shards(image: Rows, text: Rows, scale: torch.Tensor) -> list[Relation]:
    """The image-to-text relation of three ranks that hold 3, 1 and 4 of the 8 rows."""
    parts = torch.split(image.values, [3, 1, 4])
    offsets = [0, 3, 4]
    return [
        Relation(rows_of(part, torch.float64), text, scale, offset) for part, offset in zip(parts, offsets, strict=True)
    ]


@each_backend
def test_rows_of_a_part_of_the_batch_are_those_of_the_whole(backend):
    image, text, scale = rows(8, 5, 1), rows(8, 5, 2), torch.tensor(14.3, dtype=torch.float64)
    other = Pairs(rows(8, 7, 3), rows(8, 7, 4), scale * 2)
    whole = Relation(image, text, scale)
    cross, divergence = backend.evaluate([CrossEntropy(whole), KL(whole, other.i2t)])
    parts, others = shards(image, text, scale), shards(other.image, other.text, scale * 2)
    found = backend.evaluate([CrossEntropy(part) for part in parts])
    assert torch.allclose(torch.cat(found), cross, atol=1e-12)
    found = backend.evaluate([KL(part, teacher) for part, teacher in zip(parts, others, strict=True)])
    assert torch.allclose(torch.cat(found), divergence, atol=1e-12)


@each_backend
def test_gradients_of_a_part_of_the_batch_are_those_of_its_own_mean(backend):
    image, text, scale = rows(8, 5, 1), rows(8, 5, 2), torch.tensor(14.3, dtype=torch.float64)
    for part in shards(image, text, scale):
        queries, keys = part.queries.normalized().requires_grad_(), part.keys.normalized().requires_grad_()
        targets = torch.arange(len(queries)) + part.offset
        F.cross_entropy(scale * queries @ keys.T, targets).backward()
        ((found_queries, found_keys),) = backend.evaluate([CrossEntropyGrad(part)])
        assert torch.allclose(found_queries, queries.grad, atol=1e-12)
        assert torch.allclose(found_keys, keys.grad, atol=1e-12)


@each_backend
def test_gradients_of_confident_rows_keep_their_digits_in_float32(backend):
    """p is within 1e-9 of 1 there: p - 1 computed as a difference has no correct digit in float32."""

    def answer(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        eye = rows_of(torch.eye(6, dtype=dtype), dtype)
        return backend.evaluate([CrossEntropyGrad(Relation(eye, eye, torch.tensor(21.0, dtype=dtype)))])[0]

    for a, b in zip(answer(torch.float32), answer(torch.float64), strict=True):
        assert ((a.double() - b).norm() / b.norm()).item() < 1e-5


def test_a_part_of_the_batch_has_no_transpose():
    with pytest.raises(AssertionError, match="only a square relation has a transpose"):
        Relation(rows(3, 5, 1), rows(8, 5, 2), torch.tensor(1.0)).transposed()
