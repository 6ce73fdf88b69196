"""Holds a backend's answers to a list of requests, and their gradients, against the definitions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kdlosses.backends.contract import Backend
from kdlosses.requests import Request
from tests.backends import reference
from tests.backends.subjects import Subject
from tests.tolerance import assert_close


def flat(backend: Backend, requests: Sequence[Request]) -> list[Tensor]:
    """A backend's answers in one list, both of a gradient's."""
    return [t for answer in backend.evaluate(requests) for t in (answer if isinstance(answer, tuple) else [answer])]


def gradients(answers: Sequence[Tensor], leaves: Sequence[Tensor], used: Sequence[bool] | None = None) -> list[Tensor]:
    """Of a combination, no two weights alike, of the answers in use; an answer without a graph counts as a constant."""
    total = sum(leaf.double().sum() * 0 for leaf in leaves)
    for number, (answer, wanted) in enumerate(zip(answers, used or [True] * len(answers), strict=False)):
        if wanted and answer.requires_grad:
            weights = torch.linspace(-1.3 - number, 3.7, answer.numel(), dtype=torch.float64, device=answer.device)
            total = total + (answer.double().flatten() * weights).sum()
    return list(torch.autograd.grad(total, leaves)) if leaves else []


def assert_agrees(
    tested: Subject, requests: Sequence[Request], tensors: Sequence[Tensor], used: Sequence[bool] | None = None
) -> None:
    """Every answer, and the gradients of those in `used` at those of `tensors` that ask for one."""
    expected, found = reference.answers(requests), flat(tested.backend, requests)
    for got, wanted in zip(found, expected, strict=True):
        assert got.shape == wanted.shape
        assert got.dtype == tested.dtype
        assert_close(got.detach(), wanted.detach(), tested.dtype, "answer")
    leaves = [tensor for tensor in tensors if tensor.requires_grad]
    pairs = zip(gradients(found, leaves, used), gradients(expected, leaves, used), strict=True)
    for got, wanted in pairs:
        if tested.dtype == torch.float32:
            # As one length: where parts cancel, an element by itself has few digits in float32, whoever computes it.
            assert (got.double() - wanted).norm() <= 2e-5 * wanted.norm() + 1e-6
        else:
            assert_close(got, wanted, tested.dtype, "gradient")


def distance(got: Tensor, wanted: Tensor) -> float:
    """The length of the difference, as a share of the length of what is wanted."""
    wanted = wanted.double()
    return ((got.double() - wanted).norm() / wanted.norm()).item()
