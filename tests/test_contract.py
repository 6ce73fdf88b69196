"""What every registered loss promises at its border: keywords, output, dtypes and shapes."""

from __future__ import annotations

import inspect

import pytest
import torch
from hypothesis import given

import kdlosses
from kdlosses.options import resolved
from tests import strategies
from tests.oracles import ORACLES
from tests.problems import BIASES, STUDENT, TEACHER, Problem
from tests.running import assert_same, assert_teacher_untouched, build, run, run_oracle
from tests.tolerance import assert_close

NAMES = kdlosses.available_losses(without_options=True)
MIXED = Problem(student_dim=4, teacher_dim=6)
READ_THE_BIAS = {"siglip", "sigmoid_kd"}


@pytest.fixture(params=NAMES)
def name(request) -> str:
    return request.param


def test_every_loss_has_an_oracle():
    """A new loss without an independent oracle fails here: add one to tests/oracles.py."""
    assert set(NAMES) == {*ORACLES, "clip_kd"}
    # A bank is a loss for each kind of keys and targets: tests/losses/test_bank.py has its oracles.
    assert set(kdlosses.available_terms()) == {*ORACLES, "bank"}


def test_keywords_are_open_clips_in_its_order(name):
    parameters = inspect.signature(build(name, Problem()).forward).parameters
    expected = [*STUDENT, *TEACHER, "output_dict", *BIASES]
    positional = [key for key, p in parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert positional == expected
    assert parameters["output_dict"].default is False
    assert parameters["logit_bias"].default is parameters["dist_logit_bias"].default is None


def test_constructor_takes_keywords_alone(name):
    parameters = inspect.signature(type(build(name, Problem()))).parameters.values()
    keywords = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    settings = {"variant": "paper", "backend": "auto", "check": False, "group": "auto", "reduction": "mean"}
    settings |= dict.fromkeys(("student_dim", "teacher_dim", *(("options", "terms") if name == "clip_kd" else ())))
    own = {} if name == "clip_kd" else resolved(name, kdlosses.registry.get_term(name), {})
    assert keywords == settings | {key: tuple(one) if isinstance(one, dict) else one for key, one in own.items()}


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_positional_and_keyword_calls_agree(name, variant):
    loss, inputs = build(name, Problem(), variant=variant), Problem().inputs()
    features, biases = ([inputs[key] for key in keys] for keys in ((*STUDENT, *TEACHER), BIASES))
    assert torch.equal(loss(*features, False, *biases), loss(**inputs))
    if name not in READ_THE_BIAS:
        assert torch.equal(loss(*features), loss(**inputs))


def test_output_dict_holds_named_terms_that_sum_to_the_scalar(name):
    loss, inputs = build(name, MIXED), MIXED.inputs()
    terms = loss(**inputs, output_dict=True)
    expected = ["contrastive", "crd", "fd", "icl"] if name == "clip_kd" else [name]
    assert list(terms) == [f"{term}_loss" for term in expected]
    assert all(term.shape == () for term in terms.values())
    assert_close(sum(terms.values()), loss(**inputs))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_result_is_a_float32_scalar_and_float64_for_float64(name, dtype):
    value = build(name, MIXED, dtype=torch.float32)(**MIXED.inputs(dtype))
    assert value.shape == ()
    assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


@given(problem=strategies.problems(max_batch=5))
def test_teacher_gets_no_gradient(problem):
    for name in NAMES:
        assert_teacher_untouched(run(build(name, problem), problem.inputs()))


@pytest.mark.parametrize("dims", [Problem(), MIXED], ids=["same", "mixed"])
def test_clip_kd_equals_the_oracles(dims):
    loss = build("clip_kd", dims)
    params = {key: p.detach() for key, p in loss.named_parameters()}
    assert_same(run(loss, dims.inputs()), run_oracle("clip_kd", dims.inputs(), params, "paper"))


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_scale_as_number_scalar_or_one_element_tensor(name, variant):
    loss, inputs = build(name, Problem(), variant=variant), Problem().inputs()
    single = [STUDENT[2], TEACHER[2], *BIASES]
    numbers = inputs | {key: inputs[key].item() for key in single}
    rows = inputs | {key: inputs[key].reshape(1) for key in single}
    assert torch.equal(loss(**numbers), loss(**inputs))
    scalar, row = run(loss, inputs), run(loss, rows)
    assert torch.equal(scalar.value, row.value)
    for key in ("logit_scale", "logit_bias"):
        if scalar.grads[key] is not None:
            assert row.grads[key].shape == (1,)
            assert torch.equal(scalar.grads[key], row.grads[key][0])


def test_the_terms_that_read_the_students_scale_give_it_a_gradient(name):
    gradient = run(build(name, Problem()), Problem().inputs()).grads["logit_scale"]
    softmaxes = {"contrastive", "crd", "affinity", "gd", "clip_kd", "relation", "decoupled_affinity"}
    assert (gradient is not None) == (name in READ_THE_BIAS | softmaxes)


def test_a_bias_changes_the_sigmoid_terms_alone(name):
    loss, inputs = build(name, Problem()), Problem().inputs()
    biased = loss(**inputs | {"logit_bias": torch.tensor(-10.0), "dist_logit_bias": torch.tensor([3.0])})
    assert torch.equal(biased, loss(**inputs)) == (name not in READ_THE_BIAS)
    assert (run(loss, inputs).grads["logit_bias"] is not None) == (name in READ_THE_BIAS)


def test_no_grad_forward_gives_the_same_value(name):
    loss, inputs = build(name, MIXED), MIXED.inputs()
    inputs["image_features"].requires_grad_()
    with torch.no_grad():
        value = loss(**inputs)
    assert not value.requires_grad
    assert torch.equal(value, loss(**inputs).detach())


def test_inputs_are_not_modified(name):
    inputs, before = MIXED.inputs(), MIXED.inputs()
    build(name, MIXED)(**inputs)
    assert all(torch.equal(inputs[key], before[key]) for key in inputs)


def test_backend_dense_is_what_auto_gives_on_a_cpu(name):
    inputs = MIXED.inputs()
    assert torch.equal(build(name, MIXED, backend="dense")(**inputs), build(name, MIXED)(**inputs))


def test_shapes_can_be_tried_out_without_numbers(name):
    """On the meta device, which torch.autocast does not know."""
    inputs = {key: value.to("meta") for key, value in MIXED.inputs().items()}
    image = inputs["image_features"].requires_grad_()
    value = build(name, MIXED).to("meta")(**inputs)
    value.backward()
    assert value.is_meta and value.shape == () and image.grad.shape == image.shape
