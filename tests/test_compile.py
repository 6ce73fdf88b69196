"""torch.compile takes every loss whole, forward and backward, and changes nothing."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

import kdlosses
from tests.problems import Problem
from tests.running import Outcome, assert_same, build, leaves, run

MIXED = Problem(student_dim=4, teacher_dim=6)


@pytest.fixture(autouse=True)
def _fresh_compiler() -> None:
    torch._dynamo.reset()


def run_compiled(loss: torch.nn.Module, inputs: dict[str, torch.Tensor], backend: str) -> Outcome:
    """As `run`, for the compiled module: its parameters are those of `loss`, under other names."""
    compiled = torch.compile(loss, fullgraph=True, backend=backend)
    outcome = run(compiled, inputs)
    return Outcome(outcome.value, {key.replace("_orig_mod.", ""): grad for key, grad in outcome.grads.items()})


def _singles() -> list[Any]:
    """Every loss in both variants; one is fast, as the tests below compile CLIP-KD and most other terms."""
    fast = [("fd", "released")]
    every = product(kdlosses.available_losses(), ["paper", "released"])
    return [pytest.param(*one, marks=() if one in fast else pytest.mark.slow) for one in every]


@pytest.mark.parametrize(("name", "variant"), _singles())
def test_one_graph_with_the_same_values_and_gradients(name, variant):
    problem = MIXED if (name, variant) != ("afd", "released") else Problem()
    loss, inputs = build(name, problem, variant=variant), problem.inputs()
    assert_same(run_compiled(loss, inputs, "aot_eager"), run(loss, inputs))


@pytest.mark.parametrize(
    "terms",
    [
        pytest.param(("icl", "contrastive"), marks=pytest.mark.slow),
        pytest.param(("gd", "icl", "crd", "afd"), marks=pytest.mark.slow),
        pytest.param(("icl", "cross_kd", "afd", "contrastive"), marks=pytest.mark.slow),
        pytest.param(("sigmoid_kd", "crd", "siglip"), marks=pytest.mark.slow),
        pytest.param(("affinity", "vrd", "xrd", "crd", "icl"), marks=pytest.mark.slow),
    ],
    ids="+".join,
)
def test_terms_in_any_order(terms):
    """torch 2.6 took one tensor for another where variables of both passes had one name (see `tiles.measure`)."""
    loss, inputs = build("clip_kd", MIXED, weights=dict.fromkeys(terms, 1.0)), MIXED.inputs()
    assert_same(run_compiled(loss, inputs, "eager"), run(loss, inputs))


@pytest.mark.slow
def test_half_inputs_under_autocast():
    loss, inputs = build("clip_kd", MIXED, dtype=torch.float32), MIXED.inputs(torch.bfloat16)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = compiled(**inputs)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(**inputs), rtol=1e-6, atol=0)


@pytest.mark.slow
def test_a_smaller_last_batch_is_one_graph_too():
    loss, last = build("crd", MIXED), MIXED.with_(batch=3).inputs()
    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    compiled(**MIXED.inputs())
    torch.testing.assert_close(compiled(**last), loss(**last))


@pytest.mark.slow
def test_inductor():
    """Needs a C++ compiler."""
    loss, inputs = build("gd", MIXED, dtype=torch.float32), MIXED.inputs(torch.float32)
    assert_same(run_compiled(loss, inputs, "inductor"), run(loss, inputs), torch.float32)


@pytest.mark.slow
def test_an_input_that_is_written_to_before_the_backward_pass_raises():
    """As in eager mode, where a compiled loss gave a wrong gradient in silence."""
    compiled = torch.compile(build("fd", MIXED), fullgraph=True, backend="aot_eager")
    for name in ("image_features", "dist_text_features"):
        given = {key: value * 1 for key, value in leaves(MIXED.inputs()).items()}
        value = compiled(**given)
        with torch.no_grad():
            given[name].mul_(-3)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            value.backward()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "backend"), [("contrastive", "chunked"), ("crd", "dense")])
def test_a_varying_number_of_rows_is_compiled_twice_at_most(name, backend):
    counter = CompileCounterWithBackend("eager")
    loss = build(name, MIXED, backend=backend)
    compiled = torch.compile(loss, fullgraph=True, backend=counter, dynamic=True)
    for batch in (7, 8, 9, 11):
        inputs = MIXED.with_(batch=batch).inputs()
        found, wanted = run(compiled, inputs), run(loss, inputs)
        assert torch.equal(found.value, wanted.value)
        assert all(value is None or torch.equal(found.grads[key], value) for key, value in wanted.grads.items())
    assert counter.frame_count <= 2
