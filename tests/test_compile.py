"""torch.compile takes every loss whole, forward and backward, and changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

import kdlosses
from kdlosses import backends
from kdlosses.backends import auto
from tests.problems import TEACHER, Inputs, Problem
from tests.running import UPSTREAM, Outcome, assert_same, build, leaves, run, zero_if_none

MIXED = Problem(student_dim=4, teacher_dim=6)
BACKENDS = {
    "dense": "dense",
    "chunk-size-3": backends.create("chunked", chunk_size=3),
    "auto": "auto",
}


@pytest.fixture(autouse=True)
def _fresh_compiler() -> None:
    torch._dynamo.reset()


def run_compiled(loss: torch.nn.Module, inputs: dict[str, torch.Tensor], backend: str) -> Outcome:
    """As `run`, for the compiled module: its parameters are those of `loss`, under other names."""
    compiled = torch.compile(loss, fullgraph=True, backend=backend)
    outcome = run(compiled, inputs)
    return Outcome(outcome.value, {key.replace("_orig_mod.", ""): grad for key, grad in outcome.grads.items()})


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["paper", "released"])
@pytest.mark.parametrize("name", kdlosses.available_losses(without_options=True))
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
    """Whatever the order, each term gets its own answers from the operator."""
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
@pytest.mark.parametrize(("name", "backend"), [("fd", "dense"), ("crd", "chunk-size-3")])
def test_an_input_that_is_written_to_before_the_backward_pass_raises(name, backend):
    """As in eager mode, or the gradient is right; `tests/backends/test_compiled.py` has the other losses."""
    loss = build(name, MIXED, backend=BACKENDS[backend])
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager", dynamic=True)
    wanted, raised = _written_to(compiled, MIXED, None), []
    for key in MIXED.inputs():
        try:
            found = _written_to(compiled, MIXED, key)
        except RuntimeError as error:
            assert "modified by an inplace operation" in str(error)
            raised.append(key)
        else:
            assert found.keys() == wanted.keys()
            assert all(torch.equal(found[one], wanted[one]) for one in wanted), key
    assert "image_features" in raised


def _written_to(loss: torch.nn.Module, problem: Problem, key: str | None) -> dict[str, torch.Tensor]:
    """The gradients of a loss one of whose inputs is multiplied after it was called."""
    held = leaves(problem.inputs())
    given = {name: value * 1 for name, value in held.items()}
    value = loss(**given)
    if key is not None:
        with torch.no_grad():
            given[key].mul_(-3)
    value.backward()
    return {name: one.grad for name, one in held.items() if one.grad is not None}


def _with_backends() -> list[Any]:
    every = [(name, "chunk-size-3") for name in kdlosses.available_losses(without_options=True)]
    every += [("clip_kd", "dense"), ("gd", "dense"), ("sigmoid_kd", "auto")]
    return [pytest.param(*one, marks=() if one == ("crd", "chunk-size-3") else pytest.mark.slow) for one in every]


@pytest.mark.parametrize(("name", "backend"), _with_backends())
def test_any_number_of_rows_is_compiled_once_to_the_last_bit(name, backend):
    """Also across the tiles' limits."""
    problem = MIXED if name != "afd" else Problem()
    counter = CompileCounterWithBackend("eager")
    loss = build(name, problem, backend=BACKENDS[backend])
    compiled = torch.compile(loss, fullgraph=True, backend=counter, dynamic=True)
    for batch in (7, 8, 2, 3, 11):
        _assert_bit_for_bit(compiled, loss, problem.with_(batch=batch).inputs())
    assert counter.frame_count == 1


def _assert_bit_for_bit(compiled: torch.nn.Module, loss: torch.nn.Module, inputs: Inputs) -> None:
    wanted, found = run(loss, inputs), run(compiled, inputs)
    assert torch.equal(found.value, wanted.value)
    grads = {key.replace("_orig_mod.", ""): grad for key, grad in found.grads.items()}
    for key, grad in wanted.grads.items():
        assert grad is None or torch.equal(zero_if_none(grads[key], grad), grad), key


@pytest.mark.slow
@pytest.mark.parametrize("name", ["crd"])
def test_auto_is_compiled_twice_across_its_limit(name, monkeypatch):
    monkeypatch.setattr(auto, "DENSE_BYTES", 2000)
    counter = CompileCounterWithBackend("eager")
    loss = build(name, MIXED)
    compiled = torch.compile(loss, fullgraph=True, backend=counter, dynamic=True)
    for batch in (3, 20, 4, 30, 5):
        _assert_bit_for_bit(compiled, loss, MIXED.with_(batch=batch).inputs())
    assert counter.frame_count == 2


@pytest.mark.slow
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_teacher_may_run_without_gradients(mode):
    """torch refuses to save what inference mode made; a teacher whose logits are kept need not be saved."""
    loss, inputs = build("crd", MIXED, backend="dense"), MIXED.inputs()
    with mode():
        teacher = {key: value.clone() for key, value in inputs.items() if key in TEACHER}
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    student = leaves(inputs)
    compiled(**student | teacher).backward()
    torch.testing.assert_close(UPSTREAM * student["image_features"].grad, run(loss, inputs).grads["image_features"])
