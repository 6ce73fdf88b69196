"""Inputs as trainers hand them over: any float dtype, any strides, any length of rows, even none."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tests.backends.agreement import distance
from tests.backends.cases import KINDS, NAMES, Case
from tests.backends.subjects import USABLE, Subject, subject
from tests.grid import grid
from tests.problems import TEACHER, Inputs, Problem
from tests.running import UPSTREAM, Outcome, run
from tests.tolerance import assert_close

WIDE = Problem(batch=6, student_dim=4, teacher_dim=6)
FEATURES = ("image_features", "text_features", "dist_image_features", "dist_text_features")


def takes_long(name: str, label: str, **_: object) -> bool:
    return (name, label) == ("gd", "triton")


def outcome(name: str, inputs: Inputs, tested: Subject, dtype: torch.dtype = torch.float32) -> Outcome:
    inputs = {key: value.to(tested.device) for key, value in inputs.items()}
    return run(Case(name, WIDE).loss(tested.backend, dtype).to(tested.device), inputs)


@grid(name=NAMES, label=USABLE, dtype=[torch.float16, torch.bfloat16])
def test_half_rows_count_as_the_numbers_they_hold(name, dtype, label):
    half = WIDE.inputs(dtype)
    low, high = (outcome(name, inputs, subject(label)) for inputs in (half, {k: v.float() for k, v in half.items()}))
    assert low.value.dtype == torch.float32
    assert_close(low.value, high.value)
    for key, gradient in low.grads.items():
        if gradient is not None and key in half:
            assert gradient.dtype == dtype
            if (label, dtype) == ("triton", torch.bfloat16):
                # It stores the derivative's tiles in bfloat16: each entry is off by up to 2^-9 of itself.
                assert distance(gradient, high.grads[key]) < 2**-7, key
            else:
                assert_close(gradient, high.grads[key], dtype, key)


def transposed(rows: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    return rows.T.contiguous(), lambda leaf: leaf.T


def strided(rows: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    return rows.repeat_interleave(2, 0).repeat_interleave(3, 1), lambda leaf: leaf[::2, ::3]


def expanded(rows: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    return rows[:1].clone(), lambda leaf: leaf.expand(len(rows), -1)


def viewed_outcome(name: str, inputs: Inputs, layout: Callable, tested: Subject, copy: bool) -> list[Tensor | None]:
    """Value and gradients at the storages that the features are views of, or contiguous copies of views."""
    leaves, called = [], dict(inputs)
    for key in FEATURES:
        base, view = layout(inputs[key].to(tested.device, tested.dtype))
        leaves.append(base.requires_grad_(key not in TEACHER))
        called[key] = view(leaves[-1]).contiguous() if copy else view(leaves[-1])
        assert called[key].is_contiguous() == copy
    value = Case(name, WIDE).loss(tested.backend, tested.dtype).to(tested.device)(**called)
    (UPSTREAM * value).backward()
    return [value.detach(), *(leaf.grad for leaf in leaves)]


@grid(["label layout"], name=KINDS, label=USABLE, layout=[transposed, strided, expanded])
def test_strides_do_not_matter(name, layout, label):
    runs = (viewed_outcome(name, WIDE.inputs(), layout, subject(label), copy) for copy in (False, True))
    for got, wanted in zip(*runs, strict=True):
        assert (got is None) == (wanted is None)
        if got is not None:
            assert_close(got, wanted)


@grid(name=NAMES, label=USABLE, slow=takes_long)
def test_rows_of_any_length(name, label):
    """A row a million times longer has a gradient a million times shorter, down to 1e-9, and nothing else changes."""
    lengths = 10.0 ** torch.linspace(-9, 6, WIDE.batch).unsqueeze(1)
    plain = {key: value.float() for key, value in WIDE.inputs().items()}
    # Raw lengths are what a projection sees: there only the teacher's rows can be longer without changing its result.
    chosen = [
        key for key in FEATURES if name in {"siglip", "sigmoid_kd", "contrastive", "crd", "afd"} or key in TEACHER
    ]
    scaled = plain | {key: plain[key] * lengths for key in chosen}
    got, wanted = outcome(name, scaled, subject(label)), outcome(name, plain, subject(label))
    assert_close(got.value, wanted.value)
    for key in FEATURES[: 1 if name == "relation" else 2]:
        factor = lengths.to(got.grads[key].device) if key in chosen else 1.0
        assert distance(got.grads[key] * factor, wanted.grads[key]) < 1e-4


@grid(name=NAMES, label=USABLE, slow=takes_long)
def test_a_row_of_zeros_stays_finite(name, label):
    for zeros in FEATURES:
        inputs = {key: value.float() for key, value in WIDE.inputs().items()}
        inputs[zeros][2] = 0
        found = outcome(name, inputs, subject(label))
        assert torch.isfinite(found.value), zeros
        present = [gradient for gradient in found.grads.values() if gradient is not None]
        assert all(bool(torch.isfinite(gradient).all()) for gradient in present), zeros
