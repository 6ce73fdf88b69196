"""The graph of a call: used twice, interleaved, without gradients, under autocast, and guarded against changes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.utils.checkpoint
from torch import Tensor
from torch.autograd import forward_ad

from tests.backends.cases import KINDS, MIXED, Case
from tests.backends.subjects import USABLE, Subject, on_triton, subject
from tests.grid import grid
from tests.problems import STUDENT, TEACHER, Inputs, Problem
from tests.running import leaves, run

# One autograd node answers for all losses, so a loss of each kind of request shows what it does.
each_kind = grid(name=KINDS, label=USABLE, slow=on_triton)
HALVES = [torch.float16, torch.bfloat16]


def started(name: str, tested: Subject, problem: Problem = MIXED) -> tuple[torch.nn.Module, Inputs, Tensor]:
    """A loss, the leaves it was called with, and its value."""
    case = Case(name, problem)
    loss, inputs = case.loss(tested.backend, tested.dtype).to(tested.device), leaves(tested.place(problem.inputs()))
    return loss, inputs, loss(**inputs)


def take_gradients(loss: torch.nn.Module, inputs: Inputs) -> list[Tensor | None]:
    """The gradients, which are then forgotten."""
    holders = [*inputs.values(), *loss.parameters()]
    taken = [holder.grad for holder in holders]
    for holder in holders:
        holder.grad = None
    return taken


def assert_equal(first: list[Tensor | None], second: list[Tensor | None]) -> None:
    assert any(gradient is not None for gradient in first)
    for a, b in zip(first, second, strict=True):
        assert (a is None) == (b is None)
        assert a is None or torch.equal(a, b)


@each_kind
def test_a_retained_graph_gives_the_same_gradients_again(name, label):
    loss, inputs, value = started(name, subject(label))
    value.backward(retain_graph=True)
    first = take_gradients(loss, inputs)
    value.backward()
    assert_equal(first, take_gradients(loss, inputs))
    with pytest.raises(RuntimeError, match="second time"):
        value.backward()


@each_kind
def test_two_calls_before_their_backward_passes_do_not_meet(name, label):
    other = MIXED.with_(batch=7, seed=3)
    alone = []
    for problem in (MIXED, other):
        loss, inputs, value = started(name, subject(label), problem)
        value.backward()
        alone.append(take_gradients(loss, inputs))
    pending = [started(name, subject(label), problem) for problem in (MIXED, other)]
    for (loss, inputs, value), expected in zip(pending, alone, strict=True):
        value.backward()
        assert_equal(take_gradients(loss, inputs), expected)


@grid(name=KINDS, label=USABLE, slow=on_triton, mode=[torch.no_grad, torch.inference_mode])
def test_forward_without_gradients_gives_the_same_value(name, mode, label):
    loss, inputs, value = started(name, subject(label))
    with mode():
        bare = loss(**inputs)
    assert not bare.requires_grad
    assert torch.equal(bare, value.detach())


# AFD's layers are torch's own.
@grid(name=[name for name in KINDS if name != "afd"], label=USABLE, slow=on_triton, dtype=HALVES)
def test_autocast_around_the_backward_pass_changes_nothing(name, dtype, label):
    problem, tested = Problem(scale=100.0), replace(subject(label), dtype=torch.float32)
    found = []
    for active in (False, True):
        loss, inputs, value = started(name, tested, problem)
        with torch.autocast(tested.device, dtype=dtype, enabled=active):
            value.backward()
        found.append(take_gradients(loss, inputs))
    assert_equal(*found)


@grid(key=[*STUDENT[:2], "dist_image_features"], label=USABLE, slow=on_triton)
def test_an_input_changed_before_the_backward_pass_is_refused(key, label):
    """A backend that computes its logits again would otherwise give gradients of another loss."""
    _, inputs, value = started("crd", subject(label))
    with torch.no_grad():
        inputs[key].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()


@each_kind
def test_parameters_may_be_handed_in_from_outside(name, label):
    tested = subject(label)
    loss, inputs = Case(name, MIXED).loss(tested.backend, tested.dtype).to(tested.device), tested.place(MIXED.inputs())
    expected = run(loss, inputs)
    params = {key: value.detach().clone().requires_grad_() for key, value in loss.named_parameters()}
    value = torch.func.functional_call(loss, params, (), inputs)
    assert torch.equal(value.detach(), expected.value)
    if params:
        found = torch.autograd.grad(3.7 * value, list(params.values()))
        for key, gradient in zip(params, found, strict=True):
            torch.testing.assert_close(gradient, expected.grads[f"param.{key}"])


@grid(name=KINDS, label=USABLE, slow=on_triton, keys=[TEACHER, STUDENT[:1]])
def test_embeddings_may_come_from_inference_mode(name, keys, label):
    """The usual way to run a frozen teacher; torch refuses to save such tensors for a backward pass."""
    tested = subject(label)
    loss, plain = Case(name, MIXED).loss(tested.backend, tested.dtype).to(tested.device), tested.place(MIXED.inputs())
    with torch.inference_mode():
        frozen = {key: plain[key].clone() for key in keys}
    text = plain["text_features"].requires_grad_()
    (wanted,) = torch.autograd.grad(loss(**plain), text)
    (found,) = torch.autograd.grad(loss(**plain | frozen), text)
    assert torch.equal(found, wanted)


@each_kind
def test_a_second_derivative_is_refused_and_a_graph_of_the_first_changes_nothing(name, label):
    loss, inputs, value = started(name, subject(label))
    held = [tensor for tensor in (*inputs.values(), *loss.parameters()) if tensor.requires_grad]
    plain = torch.autograd.grad(value, held, retain_graph=True, allow_unused=True)
    graphed = torch.autograd.grad(value, held, create_graph=True, allow_unused=True)
    assert_equal(plain, graphed)
    penalty = sum(gradient.square().sum() for gradient in graphed if gradient is not None)
    with pytest.raises(RuntimeError, match="a loss of kdlosses cannot be differentiated again"):
        penalty.backward()


@each_kind
def test_checkpointing_changes_nothing(name, label):
    """What is computed again in the backward pass saves as many tensors as the first time."""
    loss, inputs, value = started(name, subject(label))
    (wanted,) = torch.autograd.grad(value, inputs["text_features"])
    again = torch.utils.checkpoint.checkpoint(loss, **inputs, use_reentrant=False)
    (found,) = torch.autograd.grad(again, inputs["text_features"])
    assert torch.equal(found, wanted)


TRANSFORMS = {
    "grad": lambda loss, given: torch.func.grad(lambda image: loss(**given | {"image_features": image})),
    "jacrev": lambda loss, given: torch.func.jacrev(lambda image: loss(**given | {"image_features": image})),
    "jvp": lambda loss, given: (
        lambda image: torch.func.jvp(lambda one: loss(**given | {"image_features": one}), (image,), (image,))
    ),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_torch_func_is_refused_in_a_sentence(name):
    given = MIXED.inputs()
    image = given["image_features"]
    with pytest.raises(RuntimeError, match=r"a loss of kdlosses cannot be transformed by torch.func \("):
        TRANSFORMS[name](Case("crd", MIXED).loss("dense", torch.float64), given)(image)


def batched(loss, given, image):
    value = loss(**given | {"image_features": image.requires_grad_()})
    return torch.autograd.grad(value, image, torch.ones(2, dtype=value.dtype), is_grads_batched=True)


def forward_mode(loss, given, image):
    with forward_ad.dual_level():
        return loss(**given | {"image_features": forward_ad.make_dual(image, torch.ones_like(image))})


BATCHED = {
    "vmap of an embedding": lambda loss, given, image: torch.vmap(lambda one: loss(**given | {"image_features": one}))(
        image.expand(2, *image.shape)
    ),
    "vmap of a scale": lambda loss, given, image: torch.vmap(lambda one: loss(**given | {"logit_scale": one}))(
        torch.ones(2, dtype=image.dtype)
    ),
    "is_grads_batched": batched,
    "vectorized jacobian": lambda loss, given, image: torch.autograd.functional.jacobian(
        lambda one: loss(**given | {"image_features": one}), image, vectorize=True
    ),
    "forward mode": forward_mode,
}


@pytest.mark.parametrize("name", BATCHED)
def test_batches_of_gradients_and_forward_mode_are_refused_in_a_sentence(name):
    given = MIXED.inputs()
    with pytest.raises(RuntimeError, match=r"a loss of kdlosses cannot be transformed by torch.func \("):
        BATCHED[name](Case("crd", MIXED).loss("dense", torch.float64), given, given["image_features"])


@pytest.mark.parametrize("name", KINDS)
def test_second_derivatives_that_torch_would_take_for_zero_are_refused(name):
    """Where a gradient does not depend on an input, torch says zero; it must know that ours does."""
    given, loss = MIXED.inputs(), Case(name, MIXED).loss("dense", torch.float64)
    image = given["image_features"]

    def call(one: Tensor) -> Tensor:
        return loss(**given | {"image_features": one})

    with pytest.raises(RuntimeError, match="cannot be differentiated again"):
        torch.autograd.functional.hessian(call, image)
    with pytest.raises(RuntimeError, match="cannot be differentiated again"):
        torch.autograd.functional.jvp(call, image, image)
