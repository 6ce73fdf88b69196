"""Several captions of each image: a sum over caption sets, and MobileCLIP's objective."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import kdlosses
from kdlosses import CLIPKDLoss, CLIPLoss, CRDLoss, MatryoshkaLoss, MultiCaptionLoss, MultiTeacherLoss
from tests import strategies
from tests.distributed.cases import Nested, captioned, of_captions
from tests.problems import STUDENT, Inputs, Problem
from tests.running import UPSTREAM, Outcome, assert_same, leaves, run
from tests.tolerance import assert_close

pytestmark = pytest.mark.filterwarnings("ignore:mfd is combined")
WEIGHTS = {"contrastive": 1.5, "crd": 0.5, "fd": 20.0, "icl": 1.0}
MIXED = Problem(batch=4, student_dim=4, teacher_dim=6)


def lists(inputs: Inputs, sets: int = 2) -> dict[str, Any]:
    """Inputs with as many caption sets."""
    texts = {
        key: [inputs[key] if not number else torch.roll(inputs[key], number, 1) - 0.3 for number in range(sets)]
        for key in ("text_features", "dist_text_features")
    }
    return inputs | texts


def of_set(inputs: dict[str, Any], number: int) -> Inputs:
    return {key: value[number] if isinstance(value, list) else value for key, value in inputs.items()}


def softmax_of(image: Tensor, text: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """log p of each image over texts and of each text over images, as SPEC section 12 writes them."""
    image, text = image / image.norm(dim=1, keepdim=True), text / text.norm(dim=1, keepdim=True)
    return (scale * image @ text.T).log_softmax(1), (scale * text @ image.T).log_softmax(1)


def mobileclip(given: dict[str, Any], share: float) -> Tensor:
    """sum_k (1 - a) contrastive_k + a distill_k, distill to the mean of the teachers' softmaxes, each at its scale."""
    total = 0
    for text, teacher_texts in zip(given["text_features"], given["dist_text_features"], strict=True):
        student = softmax_of(given["image_features"], text, given["logit_scale"])
        teachers = [
            softmax_of(image.detach(), words.detach(), scale.detach())
            for image, words, scale in zip(
                given["dist_image_features"], teacher_texts, given["dist_logit_scale"], strict=True
            )
        ]
        for side in range(2):
            target = sum(one[side].exp() for one in teachers) / len(teachers)
            contrastive = -student[side].diagonal().mean()
            distill = (target * (target.log() - student[side])).sum(1).mean()
            total = total + ((1 - share) * contrastive + share * distill) / 2
    return total


@pytest.mark.parametrize("backend", ["dense", "chunked", "reference"])
@pytest.mark.parametrize("distill", ["crd", "affinity"])
def test_mobileclips_objective(distill, backend):
    """With both teachers' own scales. Affinity is the divergence plus a constant: another value, the same gradients."""
    flat, share = of_captions(batch=5), 0.75
    flat |= {"dist_logit_scale[0]": torch.tensor(70.0).double(), "dist_logit_scale[1]": torch.tensor(60.0).double()}
    weights = {"contrastive": 1 - share, distill: share}
    loss = Nested(MultiCaptionLoss(MultiTeacherLoss(weights, student_dim=4, teacher_dims=(6, 3), backend=backend)))
    found, given = run(loss, flat), leaves(flat)
    expected = mobileclip(Nested.nested(given), share)
    (UPSTREAM * expected).backward()
    grads = {key: leaf.grad for key, leaf in given.items()}
    value = expected.detach() if distill == "crd" else found.value
    assert_same(found, Outcome(value, grads))
    assert all(grad is None for key, grad in found.grads.items() if key.startswith("dist_"))


@given(problem=strategies.problems(max_batch=5), weights=st.none() | st.tuples(*[st.floats(0.1, 4.0)] * 3))
def test_it_is_the_sum_over_the_sets(problem, weights):
    inner = CLIPKDLoss(WEIGHTS, **problem.dims).double()
    inputs = lists(problem.inputs(), 3)
    parts = [inner(**of_set(inputs, number)) for number in range(3)]
    expected = sum(weight * part for weight, part in zip(weights or (1.0, 1.0, 1.0), parts, strict=True))
    assert_close(MultiCaptionLoss(inner, weights)(**inputs).detach(), expected.detach())


def summed(loss: Nested, flat: Inputs) -> Outcome:
    """As `run`, of the sum of the loss within for each set."""
    given = leaves(flat)
    nested = Nested.nested(given)
    total = sum(loss.loss.loss(**of_captions_set(nested, number)) for number in range(2))
    loss.zero_grad(set_to_none=True)
    (UPSTREAM * total).backward()
    grads = {key: leaf.grad for key, leaf in given.items()}
    return Outcome(total.detach(), grads | {f"param.{name}": p.grad for name, p in loss.named_parameters()})


def of_captions_set(nested: dict[str, Any], number: int) -> dict[str, Any]:
    texts = {key: nested[key][number] for key in ("text_features", "dist_text_features")}
    return nested | texts


@pytest.mark.parametrize("backend", ["dense", "chunked"])
def test_gradients_are_the_sum_of_the_sets_own(backend):
    loss, flat = captioned(backend=backend), of_captions()
    assert_same(run(loss, flat), summed(loss, flat))


def test_a_sum_over_two_equal_sets_doubles_value_and_gradient():
    inputs = MIXED.inputs()
    twice = {key: [inputs[key]] * 2 for key in ("text_features", "dist_text_features")}
    image = inputs["image_features"].requires_grad_()
    one, both = (
        torch.autograd.grad(loss, image)[0]
        for loss in (CRDLoss()(**inputs), MultiCaptionLoss(CRDLoss())(**inputs | twice))
    )
    assert_close(both, 2 * one)


@pytest.mark.parametrize("prefixes_outside", [True, False])
def test_prefixes_and_captions_together(prefixes_outside):
    inner = CLIPKDLoss(WEIGHTS, student_dim=4, teacher_dim=6).double()
    if prefixes_outside:
        loss = MatryoshkaLoss(MultiCaptionLoss(inner), [2, 4]).double()
    else:
        loss = MultiCaptionLoss(MatryoshkaLoss(inner, [2, 4])).double()
    prefixes = loss.prefixes if prefixes_outside else loss.loss.prefixes
    inputs, expected = lists(MIXED.inputs()), 0
    for dim, own in ((2, prefixes["2"]), (4, inner)):
        single = CLIPKDLoss(WEIGHTS, student_dim=dim, teacher_dim=6).double()
        single.load_state_dict(own.state_dict())
        for number in range(2):
            given = of_set(inputs, number)
            expected = expected + single(**given | {key: given[key][:, :dim] for key in STUDENT[:2]})
    assert_close(loss(**inputs).detach(), expected.detach())


def test_the_images_rows_are_shared():
    """So that a backend sums their gradient once, also after a projection."""
    loss = MultiCaptionLoss(CLIPKDLoss({"contrastive": 1.0, "fd": 1.0}, student_dim=4, teacher_dim=6).double())
    inputs = lists(MIXED.inputs(), 3)
    read = loss._read(
        tuple(inputs[key] for key in (*STUDENT, "logit_bias")),
        tuple(inputs[f"dist_{key}"] for key in (*STUDENT, "logit_bias")),
        None,
    )
    requests = [request for one in loss.computations(read) for request in one.requests]
    images = {id(request.rows()[0]) for request in requests[::2]}  # every other compares texts
    assert len(requests) == 12
    assert len(images) == 2  # as they are, and projected


def test_terms_and_dtypes():
    loss, inputs = (
        MultiCaptionLoss(CLIPKDLoss(WEIGHTS, student_dim=4, teacher_dim=6)),
        lists(MIXED.inputs(torch.float32)),
    )
    terms = loss(**inputs, output_dict=True)
    assert list(terms) == [f"{term}_loss" for term in WEIGHTS]
    assert_close(sum(terms.values()).detach(), loss(**inputs).detach())
    wide = inputs | {"text_features": [inputs["text_features"][0], inputs["text_features"][1].double()]}
    assert loss(**wide).dtype == torch.float64
    half = {key: [one.bfloat16() for one in x] if isinstance(x, list) else x.bfloat16() for key, x in inputs.items()}
    assert loss(**half).dtype == torch.float32
    assert CLIPLoss()(**{key: of_set(inputs, 0)[key] for key in STUDENT}) > 0


def test_without_a_teacher():
    inputs = {key: lists(MIXED.inputs())[key] for key in STUDENT}
    expected = sum(CLIPLoss()(**of_set(inputs, number)) for number in range(2))
    assert_close(MultiCaptionLoss(CLIPLoss())(**inputs), expected)


@pytest.mark.slow
def test_it_compiles_to_one_graph():
    torch._dynamo.reset()
    loss, flat = captioned(weights={"contrastive": 1.0, "affinity": 1.0}), of_captions()
    found = run(torch.compile(loss, fullgraph=True, backend="aot_eager"), flat)
    grads = {key.replace("_orig_mod.", ""): grad for key, grad in found.grads.items()}
    assert_same(Outcome(found.value, grads), run(loss, flat))


def test_state_and_copies():
    loss = MultiCaptionLoss(CLIPKDLoss(WEIGHTS, student_dim=4, teacher_dim=6), [0.5, 2])
    assert {name.partition(".")[0] for name in loss.state_dict()} == {"loss"}
    inputs = lists(MIXED.inputs(torch.float32))
    assert torch.equal(copy.deepcopy(loss)(**inputs), loss(**inputs))
    assert "weights=(0.5, 2.0)" in repr(loss)
    with pytest.warns(kdlosses.UntrainedParametersWarning, match=r"MultiCaptionLoss \(.*\) has parameters") as caught:
        loss(**inputs).backward()
    assert len(caught) == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"text_features": torch.eye(4)},
            "text_features must be a list with an entry for each caption set, got T",
        ),
        ({"text_features": []}, "text_features must be a list with an entry for each caption set, got an empty list"),
        ({"dist_text_features": torch.eye(4)}, "dist_text_features must be a list with an entry for each caption set"),
        ({"dist_text_features": [torch.eye(4, 6)]}, "dist_text_features has 1 caption sets but text_features has 2"),
        ({"dist_text_features": None}, "caption set 0: CRDLoss needs the teacher's outputs; missing: dist_text"),
        (
            {"text_features": [torch.eye(4).double(), torch.eye(3, 4).double()]},
            "caption set 1: text_features has 3 rows but image_features has 4",
        ),
    ],
)
def test_a_bad_call(changes, words):
    with pytest.raises(ValueError, match=words):
        MultiCaptionLoss(CRDLoss())(**lists(MIXED.inputs()) | changes)


def test_weights_belong_to_sets():
    with pytest.raises(ValueError, match="text_features has 2 caption sets, but there are 3 weights"):
        MultiCaptionLoss(CRDLoss(), [1, 1, 1])(**lists(MIXED.inputs()))
    with pytest.raises(ValueError, match="weights of MultiCaptionLoss must be a list of numbers, one for each caption"):
        MultiCaptionLoss(CRDLoss(), [])
    with pytest.raises(ValueError, match="weight 0 of MultiCaptionLoss must be a finite number above zero, got -1"):
        MultiCaptionLoss(CRDLoss(), [-1])
