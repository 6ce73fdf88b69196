"""DecoupledAffinityLoss: affinity in two parts, and decoupled knowledge distillation."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from torch._dynamo.testing import CompileCounterWithBackend

import kdlosses
from kdlosses import backends
from tests import oracles, strategies
from tests.grid import tiers
from tests.problems import STUDENT, TEACHER, Inputs, Problem, student_is_teacher
from tests.running import UPSTREAM, Outcome, assert_gradcheck, assert_same, assert_teacher_untouched, leaves, run
from tests.tolerance import assert_close

MIXED = Problem(student_dim=4, teacher_dim=6)
CHOICES: list[dict[str, Any]] = [
    {"beta": 2.0},
    {"beta": -0.8, "teacher_scale": 4.0},
    {"beta": 0.0},
    {"renormalize": True},
    {"renormalize": True, "beta": 3.0, "alpha": 0.5},
]
each_choice = pytest.mark.parametrize("chosen", CHOICES, ids=lambda one: "+".join(f"{k}={v}" for k, v in one.items()))


def expected(inputs: Inputs, chosen: dict[str, Any]) -> Outcome:
    """The oracle's value and gradients."""
    held = leaves(inputs)
    world = oracles.World(
        *(held[key] for key in STUDENT), *(held[key].detach() for key in TEACHER), params={}, variant="paper"
    )
    value = oracles.decoupled_affinity(world, **chosen)
    (UPSTREAM * value).backward()
    return Outcome(value.detach(), {key: leaf.grad for key, leaf in held.items()})


@pytest.mark.parametrize("chosen", tiers(CHOICES, CHOICES[1::3]), ids=str)
@settings(max_examples=8)
@given(problem=strategies.problems())
def test_value_and_gradients(chosen, problem):
    inputs = problem.inputs()
    found = run(kdlosses.DecoupledAffinityLoss(**chosen), inputs)
    assert_same(found, expected(inputs, chosen))
    assert_teacher_untouched(found)


@each_choice
@pytest.mark.parametrize("backend", ["chunked-2", "reference"])
def test_on_other_backends(backend, chosen):
    made = backends.create("chunked", chunk_size=2) if backend == "chunked-2" else backend
    inputs = MIXED.inputs()
    assert_same(run(kdlosses.DecoupledAffinityLoss(backend=made, **chosen), inputs), expected(inputs, chosen))


@pytest.mark.slow
@each_choice
def test_gradcheck(chosen):
    assert_gradcheck("decoupled_affinity", Problem(batch=3, student_dim=4, teacher_dim=3), **chosen)


@given(problem=strategies.problems())
def test_at_beta_one_it_is_affinity(problem):
    inputs = problem.inputs()
    found, wanted = run(kdlosses.DecoupledAffinityLoss(), inputs), run(kdlosses.AffinityLoss(), inputs)
    assert_same(found, wanted)


@given(problem=strategies.problems())
def test_dkd_is_never_negative_and_zero_at_the_teacher(problem):
    loss = kdlosses.DecoupledAffinityLoss(renormalize=True, beta=2.0)
    assert loss(**problem.inputs()) > -1e-10
    if problem.student_dim == problem.teacher_dim:
        found = run(loss, student_is_teacher(problem.inputs()))
        assert abs(found.value) < 1e-10
        assert found.grads["image_features"].abs().max() < 1e-7


def test_dkd_at_p_times_its_rest_is_crd():
    """KL(p || q) = KL of the two-way split + (1 - p_ii) KL of the rest, where every row has the same p_ii."""
    eye = torch.eye(6, dtype=torch.float64)
    inputs = Problem(batch=6, student_dim=5).inputs()
    inputs |= {"dist_image_features": eye, "dist_text_features": eye, "dist_logit_scale": torch.tensor(2.0).double()}
    p = (2 * eye).softmax(1)[0, 0].item()
    found = kdlosses.DecoupledAffinityLoss(renormalize=True, beta=1 - p)(**inputs)
    assert_close(found, kdlosses.CRDLoss()(**inputs))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("renormalize", [False, True])
def test_rows_that_are_certain_or_lost_give_finite_gradients(renormalize, dtype):
    """At scale 1000 softmaxes round to 0 and 1."""
    eye = torch.eye(4, dtype=dtype)
    loss = kdlosses.DecoupledAffinityLoss(beta=2.0, renormalize=renormalize)
    for student, teacher in ((eye, eye), (eye.roll(1, 0), eye), (eye, eye.roll(1, 0))):
        held = student.clone().requires_grad_()
        value = loss(held, eye, 1000.0, teacher, eye, 1000.0)
        value.backward()
        assert value.isfinite() and held.grad.isfinite().all()


def test_float32_has_the_digits_of_a_confident_student():
    problem = Problem(batch=6, scale=60.0, teacher_scale=80.0)
    inputs = problem.inputs()
    inputs["text_features"] = inputs["image_features"] + 0.3 * inputs["text_features"]
    inputs["dist_text_features"] = inputs["dist_image_features"] + 0.3 * inputs["dist_text_features"]
    loss = kdlosses.DecoupledAffinityLoss(renormalize=True)
    narrow, wide = run(loss, {key: value.float() for key, value in inputs.items()}), run(loss, inputs)
    assert_close(narrow.value, wide.value, torch.float32)
    for key in ("image_features", "text_features"):
        gap = (narrow.grads[key].double() - wide.grads[key]).norm()
        assert gap < 1e-4 * wide.grads[key].norm()


@pytest.mark.slow
def test_another_beta_compiles_nothing_anew():
    inputs, loss = MIXED.inputs(torch.float32), kdlosses.DecoupledAffinityLoss(beta=2.0)
    counter = CompileCounterWithBackend("eager")
    compiled = torch.compile(loss, fullgraph=True, backend=counter)
    for beta in (2.0, 0.5, -0.8):
        loss.beta = beta
        assert torch.equal(compiled(**inputs), loss(**inputs))
    assert counter.frame_count == 1


def test_beta_may_be_set_between_steps():
    inputs, loss = MIXED.inputs(), kdlosses.DecoupledAffinityLoss(beta=2.0)
    for beta in (2.0, 0.5, -0.8):
        loss.beta = beta
        assert loss.beta == beta
        wanted = kdlosses.DecoupledAffinityLoss(beta=beta)(**inputs)
        assert_close(loss(**inputs), wanted)
    assert "beta=-0.8" in repr(loss) and not loss.state_dict()
    for twin in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert_close(twin(**inputs), wanted)
        twin.beta = 1.0
        assert_close(loss(**inputs), wanted)


def test_beta_of_a_named_term_in_a_sum():
    terms = {"soft": {"loss": "decoupled_affinity", "beta": 2.0}, "dkd": {"loss": "decoupled_affinity"}}
    loss = kdlosses.CLIPKDLoss({"soft": 1.0, "dkd": 0.5, "crd": 1.0}, terms=terms)
    loss.set_option("soft", "beta", -0.5)
    found = loss(**MIXED.inputs(), output_dict=True)
    assert_close(found["soft_loss"], kdlosses.DecoupledAffinityLoss(beta=-0.5)(**MIXED.inputs()))
    assert_close(found["dkd_loss"], 0.5 * kdlosses.DecoupledAffinityLoss()(**MIXED.inputs()))


def test_what_cannot_be_set_is_refused():
    loss = kdlosses.CLIPKDLoss({"decoupled_affinity": 1.0, "crd": 1.0})
    for term, option, value, says in (
        ("affinity", "beta", 1.0, "term 'affinity' is unknown; known: decoupled_affinity, crd"),
        ("crd", "beta", 1.0, "option of term 'crd' that can be set 'beta' is unknown"),
        ("decoupled_affinity", "alpha", 1.0, "known: beta"),
        ("decoupled_affinity", "beta", float("nan"), "must be a finite number, got nan"),
    ):
        with pytest.raises(ValueError, match=says):
            loss.set_option(term, option, value)
    with pytest.raises(ValueError, match="alpha weighs a part that renormalize=True has alone"):
        kdlosses.DecoupledAffinityLoss(alpha=2.0)
