"""What the backends hold: chunked never a matrix of pairs, dense its tiles until the backward pass and no longer."""

from __future__ import annotations

import gc

import pytest
import torch
from torch import Tensor

from kdlosses import backends
from tests.backends.cases import EVERY, NAMES, Case
from tests.backends.watching import Watch
from tests.grid import tiers
from tests.problems import Problem
from tests.running import leaves

BATCH, WIDTH, CHUNK, BYTES = 512, 8, 96, 4
MATRIX = BATCH * BATCH * BYTES
LARGE = Problem(batch=BATCH, student_dim=WIDTH, teacher_dim=WIDTH)
CASES = {name: Case(name, LARGE) for name in NAMES}
CASES["released-gd"] = Case("gd", LARGE, "released")
CASES["every-term"] = Case("clip_kd", LARGE, masked=True, weights=EVERY)
# How many matrices of pairs each needs: the student's, the teacher's, two across, the fusion's; none for distances.
MATRICES = {"contrastive": 1, "crd": 2, "affinity": 2, "icl": 2, "cross_kd": 3, "afd": 1, "clip_kd": 4, "every-term": 9}
MATRICES |= {"vrd": 2, "xrd": 2, "siglip": 1, "sigmoid_kd": 2, "relation": 2, "decoupled_affinity": 2}
# A gradient has to be differentiated again for the student alone.
MATRICES |= {"gd": 1, "released-gd": 1}
FAST = ("every-term", "gd", "xrd", "sigmoid_kd", "fd")


def started(name: str, backend: str | backends.Backend, watch: Watch) -> Tensor:
    """The value of a case on leaves that nobody else holds."""
    inputs, loss = leaves(CASES[name].inputs(torch.float32)), CASES[name].loss(backend, torch.float32)
    with watch:
        return loss(**inputs)


@pytest.mark.parametrize("name", tiers(CASES, FAST))
def test_chunked_never_makes_a_matrix_of_pairs(name):
    """No tensor is larger than a tile or two inputs, fused; all together are gradients and a few tiles."""
    watch = Watch()
    value = started(name, backends.create("chunked", chunk_size=CHUNK), watch)
    with watch:
        value.backward()
    tile, rows = CHUNK * CHUNK * BYTES, BATCH * WIDTH * BYTES
    assert 0 < watch.largest <= max(tile, 2 * rows)
    # Of every term: each of the eleven relations and teachers keeps vectors as large as one side and a half.
    assert watch.peak < 8 * tile + (44 if name == "every-term" else 14) * rows
    assert 8 * tile + 44 * rows < MATRIX


@pytest.mark.parametrize("name", MATRICES)
def test_dense_keeps_its_matrices_until_the_backward_pass_and_no_longer(name):
    watch = Watch()
    value = started(name, "dense", watch)
    assert watch.live // MATRIX == MATRICES[name]
    with watch:
        value.backward()
    assert watch.live < MATRIX / 4
    assert torch.isfinite(value)


@pytest.mark.parametrize("name", MATRICES)
def test_a_value_that_is_dropped_takes_its_matrices_along(name):
    """At once: a cycle of references would hold them until Python's collector runs."""
    gc.disable()
    try:
        watch = Watch()
        value = started(name, "dense", watch)
        assert watch.live >= MATRIX
        del value
        assert watch.live < MATRIX / 4
    finally:
        gc.enable()


@pytest.mark.parametrize("name", MATRICES)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_dense_keeps_nothing_where_no_gradient_is_asked_for(name, mode):
    watch = Watch()
    with mode():
        value = started(name, "dense", watch)
    assert watch.live < MATRIX / 4
    assert torch.isfinite(value)


@pytest.mark.parametrize("name", MATRICES)
def test_dense_keeps_nothing_for_a_student_that_is_frozen(name):
    case, watch = CASES[name], Watch()
    loss = case.loss("dense", torch.float32).requires_grad_(False)
    inputs = case.inputs(torch.float32)
    with watch:
        value = loss(**inputs)
    assert not value.requires_grad
    assert watch.live < MATRIX / 4


def packed(name: str, backend: str | backends.Backend) -> tuple[list[Tensor], list[Tensor | None], Tensor]:
    """What is saved for the backward pass, and the gradients when every saved tensor went elsewhere and came back."""
    seen: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        seen.append(tensor)
        return tensor.clone()

    case = CASES[name]
    inputs, loss = leaves(case.inputs(torch.float32)), case.loss(backend, torch.float32)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        value = loss(**inputs)
    value.backward()
    return seen, [leaf.grad for leaf in inputs.values()], value


@pytest.mark.parametrize("name", tiers(MATRICES, FAST))
def test_saved_tensors_hooks_see_the_kept_tiles(name):
    """So that they can be moved to the CPU or to a file; what comes back gives the same gradients."""
    kept, gradients, _ = packed(name, "dense")
    made, others, _ = packed(name, backends.create("chunked", chunk_size=CHUNK))
    assert any(tensor.numel() == BATCH * BATCH for tensor in kept)
    assert all(tensor.numel() <= max(5 * BATCH, BATCH * 2 * WIDTH) for tensor in made)
    for got, wanted in zip(gradients, others, strict=True):
        assert (got is None) == (wanted is None)
        assert got is None or torch.allclose(got, wanted, rtol=1e-3, atol=1e-6 * wanted.abs().max())
