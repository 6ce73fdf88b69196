"""Dtypes, autocast, extreme scales and small batches."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given

import kdlosses
from tests import strategies
from tests.grid import grid
from tests.problems import Problem, student_is_teacher
from tests.running import Outcome, assert_same, build, run, run_oracle
from tests.tolerance import assert_close

NAMES = kdlosses.available_losses(without_options=True)
HALVES = [torch.float16, torch.bfloat16]
each_loss = pytest.mark.parametrize("name", NAMES)


def finite(outcome: Outcome) -> bool:
    tensors = [outcome.value, *(grad for grad in outcome.grads.values() if grad is not None)]
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)


@grid(name=NAMES, variant=["paper", "released"])
@given(problem=strategies.problems(same_width=True, max_batch=6))
def test_float32_stays_near_the_float64_oracle(name, variant, problem):
    problem = problem.with_(scale=min(problem.scale, 50.0), teacher_scale=min(problem.teacher_scale, 50.0))
    loss, inputs = build(name, problem, variant=variant, dtype=torch.float32), problem.inputs(torch.float32)
    params = {key: p.detach() for key, p in loss.named_parameters()}
    expected = run_oracle(name, inputs, params, variant)
    assert_close(run(loss, inputs).value, expected.value)


@each_loss
@pytest.mark.parametrize("variant", ["paper", "released"])
def test_float32_gradients_stay_near_float64s_at_scale_100(name, variant):
    """On a batch of a size that is used, with the teacher far from the student; relative, as one length each."""
    problem = Problem(batch=256, student_dim=32, teacher_dim=32, scale=100.0, teacher_scale=100.0)
    exact, rough = (
        run(build(name, problem, variant=variant, dtype=dtype), problem.inputs(dtype))
        for dtype in (torch.float64, torch.float32)
    )
    assert rough.value.item() == pytest.approx(exact.value.item(), rel=2e-6)
    for key, expected in exact.grads.items():
        if expected is not None:
            error = (rough.grads[key].double() - expected).norm() / expected.norm().clamp_min(1e-30)
            assert error.item() < 2e-5, key


@each_loss
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("variant", ["paper", "released"])
def test_finite_at_scale_100_with_duplicated_rows(name, dtype, variant):
    problem = Problem(batch=8, scale=100.0, teacher_scale=100.0, duplicates=True)
    loss = build(name, problem, variant=variant, dtype=dtype)
    assert finite(run(loss, problem.inputs(dtype)))
    assert finite(run(loss, student_is_teacher(problem.inputs(dtype))))


@each_loss
@pytest.mark.parametrize("variant", ["paper", "released"])
def test_finite_where_the_teacher_is_certain_and_the_student_certainly_wrong(name, variant):
    """Probabilities underflow on both sides: log-softmax must be taken before, not after, the exponential."""
    problem = Problem(batch=6, student_dim=6, scale=100.0, teacher_scale=100.0)
    eye = torch.eye(6)
    rows = {"image_features": eye, "text_features": eye.roll(1, 0), "dist_image_features": eye}
    inputs = problem.inputs(torch.float32) | rows | {"dist_text_features": eye.roll(3, 0)}
    assert finite(run(build(name, problem, variant=variant, dtype=torch.float32), inputs))


@each_loss
def test_one_pair(name):
    """A softmax over one column is certain: the relational terms vanish, the others stay finite; a sigmoid is not."""
    problem = Problem(batch=1, student_dim=4, teacher_dim=6)
    outcome = run(build(name, problem), problem.inputs())
    assert finite(outcome)
    if name not in {"siglip", "sigmoid_kd", "fd", "mfd", "clip_kd"}:
        assert_close(outcome.value, 0.0)
    assert outcome.grads["image_features"] is not None


@each_loss
@pytest.mark.parametrize("dtype", HALVES)
def test_half_inputs_are_computed_in_float32(name, dtype):
    """bf16 is spaced 0.5 apart near 100: the value must be that of the widened inputs, to float32 rounding."""
    problem = Problem(batch=8, scale=100.0, teacher_scale=96.0)
    loss, half = build(name, problem, dtype=torch.float32), problem.inputs(dtype)
    low, high = run(loss, half), run(loss, {key: value.float() for key, value in half.items()})
    assert torch.equal(low.value, high.value)
    for key, gradient in low.grads.items():
        if gradient is not None and not key.startswith("param."):
            assert gradient.dtype == dtype
            assert_close(gradient, high.grads[key], dtype, key)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("kind", ["tensor", "number"])
def test_scales_and_biases_beside_half_features_keep_their_digits(kind, dtype):
    """14.3 is 14.3125 in bfloat16."""
    problem = Problem(batch=8, scale=14.3, teacher_scale=23.7, bias=-3.3, teacher_bias=-2.7)
    wide = problem.inputs(torch.float32)
    numbers = {key: value if kind == "tensor" else value.item() for key, value in wide.items() if value.ndim == 0}
    half = {key: value.to(dtype) for key, value in wide.items() if value.ndim}
    loss = build("clip_kd", problem, dtype=torch.float32, weights={"contrastive": 1.0, "crd": 1.0, "sigmoid_kd": 1.0})
    assert torch.equal(loss(**half, **numbers), loss(**{key: value.float() for key, value in half.items()}, **numbers))


@pytest.mark.parametrize("dtype", HALVES)
def test_gradients_of_half_features_are_rounded_once(dtype):
    """Six terms add theirs up in float32: rounded on the way, each would cost half a unit in the last place."""
    problem = Problem(batch=16, student_dim=6, teacher_dim=6)
    weights = dict.fromkeys(["contrastive", "crd", "gd", "fd", "siglip", "vrd"], 1.0)
    loss, half = build("clip_kd", problem, dtype=torch.float32, weights=weights), problem.inputs(dtype)
    low, high = run(loss, half), run(loss, {key: value.float() for key, value in half.items()})
    for key in ("image_features", "text_features"):
        wanted = high.grads[key]
        unit = torch.finfo(dtype).eps * 2.0 ** wanted.abs().log2().floor()
        near = wanted.abs() > torch.finfo(dtype).tiny * 2
        # A float32's own rounding may tip a number that lies between two others to the farther one.
        assert bool(((low.grads[key].float() - wanted).abs()[near] <= (0.51 * unit)[near]).all()), key


@each_loss
@pytest.mark.parametrize("dtype", HALVES)
def test_a_loss_moved_to_half_still_computes_in_float32(name, dtype):
    problem = Problem(student_dim=4, teacher_dim=6)
    half, inputs = build(name, problem, dtype=dtype), problem.inputs(torch.float32)
    wide = build(name, problem, dtype=dtype).float()
    assert torch.equal(half(**inputs), wide(**inputs))


@each_loss
@pytest.mark.parametrize("dtype", HALVES)
def test_autocast_changes_nothing(name, dtype):
    problem = Problem(student_dim=4, teacher_dim=6, scale=100.0)
    loss, inputs = build(name, problem, dtype=torch.float32), problem.inputs(torch.float32)
    outside = run(loss, inputs)
    inside = run(loss, inputs, forward_in=torch.autocast("cpu", dtype=dtype))
    assert torch.equal(inside.value, outside.value)
    for key, gradient in outside.grads.items():
        assert (gradient is None) == (inside.grads[key] is None)
        assert gradient is None or torch.equal(gradient, inside.grads[key]), key


@each_loss
@given(student=strategies.FLOAT_DTYPES, teacher=strategies.FLOAT_DTYPES)
def test_student_and_teacher_may_differ_in_dtype(name, student, teacher):
    problem = Problem(student_dim=4, teacher_dim=6)
    ours, theirs = problem.inputs(student), problem.inputs(teacher)
    inputs = {key: (theirs if key.startswith("dist_") else ours)[key] for key in ours}
    loss = build(name, problem, dtype=torch.float32)
    outcome = run(loss, inputs)
    assert outcome.grads["image_features"].dtype == student
    assert_close(outcome.value, run(loss, {k: v.double() for k, v in inputs.items()}).value, torch.float32)


@each_loss
def test_gradients_accumulate_over_calls(name):
    """Nothing is cached between calls: two backward passes add up."""
    problem = Problem(student_dim=4, teacher_dim=6)
    loss, inputs = build(name, problem), problem.inputs()
    image = inputs.pop("image_features").requires_grad_()
    loss(image, **inputs).backward()
    once = image.grad.clone()
    loss(image, **inputs).backward()
    assert_close(image.grad, 2 * once)


@each_loss
def test_equal_runs_are_bitwise_equal(name):
    problem = Problem(student_dim=4, teacher_dim=6)
    first, second = (run(build(name, problem), problem.inputs()) for _ in range(2))
    assert torch.equal(first.value, second.value)
    assert_same(first, second)
