"""Any loss on prefixes of the student's embeddings: each prefix is the loss on embeddings that were cut."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import kdlosses
from kdlosses import CLIPKDLoss, CRDLoss, FDLoss, MatryoshkaLoss, MultiTeacherLoss
from tests import oracles, strategies
from tests.distributed.cases import Nested, matryoshka, multi_teacher, of_teachers
from tests.problems import BIASES, STUDENT, TEACHER, Inputs, Problem
from tests.running import UPSTREAM, Outcome, assert_same, leaves, run
from tests.tolerance import assert_close

WEIGHTS = {"contrastive": 1.5, "crd": 0.5, "fd": 20.0, "icl": 1.0}
WIDE = Problem(batch=4, student_dim=6, teacher_dim=5)


def within(problem: Problem, dims: tuple[int, ...], weights: dict[str, float] | None = None, **keywords: Any):
    return CLIPKDLoss(weights or WEIGHTS, student_dim=dims[-1], teacher_dim=problem.teacher_dim, **keywords)


def oracle(loss: MatryoshkaLoss, inputs: Inputs, variant: str = "paper") -> Outcome:
    """sum_m w_m L(unit(z[:, :m])) as it is written, each prefix with the parameters of its own."""
    params = leaves({name: p.detach() for name, p in loss.named_parameters()})
    inputs, total = leaves(inputs), 0
    for dim, weight in zip(loss.dims, loss.dim_weights, strict=True):
        own = "loss." if dim == loss.dims[-1] else f"prefixes.{dim}."
        world = oracles.World(
            image=inputs["image_features"][:, :dim],
            text=inputs["text_features"][:, :dim],
            scale=inputs["logit_scale"],
            teacher_image=inputs["dist_image_features"].detach(),
            teacher_text=inputs["dist_text_features"].detach(),
            teacher_scale=inputs["dist_logit_scale"].detach(),
            params={name.removeprefix(own): value for name, value in params.items() if name.startswith(own)},
            variant=variant,
            bias=inputs[BIASES[0]],
            teacher_bias=inputs[BIASES[1]].detach(),
        )
        total = total + weight * oracles.clip_kd(world, loss.weights)
    (UPSTREAM * total).backward()
    grads = {name: leaf.grad for name, leaf in inputs.items()}
    return Outcome(total.detach(), grads | {f"param.{name}": leaf.grad for name, leaf in params.items()})


@pytest.mark.parametrize("backend", ["dense", "chunked"])
def test_value_and_gradients(backend):
    loss = matryoshka(within(WIDE, (2, 5, 6), backend=backend), (2, 5, 6), [0.5, 1.0, 2.0])
    found = run(loss, WIDE.inputs())
    assert_same(found, oracle(loss, WIDE.inputs()))
    assert all(found.grads[key] is None for key in TEACHER)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["paper", "released"])
@pytest.mark.parametrize("term", kdlosses.available_terms(without_options=True))
def test_every_term(term, variant):
    if (term, variant) == ("afd", "released"):
        return  # its fusion layer has the wrong shape where the widths differ
    loss = matryoshka(within(WIDE, (3, 4), {term: 2.0}, variant=variant), (3, 4))
    assert_same(run(loss, WIDE.inputs()), oracle(loss, WIDE.inputs(), variant))


@given(problem=strategies.problems(max_batch=5), data=st.data())
def test_each_prefix_is_the_loss_on_cut_embeddings(problem, data):
    numbers = st.sets(st.integers(1, problem.student_dim), min_size=1)
    dims = tuple(sorted(data.draw(numbers)))
    loss = matryoshka(within(problem, dims), dims)
    inputs, expected = problem.inputs(), 0
    for dim in dims:
        own = loss.loss if dim == dims[-1] else loss.prefixes[str(dim)]
        single = within(problem, (dim,)).double()
        single.load_state_dict(own.state_dict())
        cut = {key: inputs[key][:, :dim] for key in STUDENT[:2]}
        expected = expected + single(**inputs | cut)
    assert_close(loss(**inputs).detach(), expected.detach())


def test_the_whole_width_alone_is_the_loss_itself():
    inner = within(WIDE, (6,)).double()
    expected = run(copy.deepcopy(inner), WIDE.inputs())
    found = run(MatryoshkaLoss(inner, [6]), WIDE.inputs())
    grads = {key.replace("param.loss.", "param."): grad for key, grad in found.grads.items()}
    assert torch.equal(found.value, expected.value)
    assert all((grad is None) == (grads[key] is None) for key, grad in expected.grads.items())
    assert all(torch.equal(grads[key], grad) for key, grad in expected.grads.items() if grad is not None)


def test_several_teachers():
    loss = multi_teacher(wrap=lambda inner: matryoshka(inner, (2, 4)), weights={"crd": 1.0, "fd": 3.0, "icl": 1.0})
    assert [name for name in dict(loss.named_parameters()) if name.endswith("cross_logit_scale")] == [
        *(f"loss.loss.teachers.{number}.cross_logit_scale" for number in range(3)),
        *(f"loss.prefixes.2.teachers.{number}.cross_logit_scale" for number in range(3)),
    ]
    inputs, expected = of_teachers(batch=4), 0
    for dim, own in ((2, loss.loss.prefixes["2"]), (4, loss.loss.loss)):
        single = MultiTeacherLoss(
            loss.loss.weights, student_dim=dim, teacher_dims=(6, 3, 4), teacher_weights=(1, 2, 3)
        ).double()
        single.load_state_dict(own.state_dict())
        expected = expected + Nested(single)(**inputs | {key: inputs[key][:, :dim] for key in STUDENT[:2]})
    assert_close(loss(**inputs).detach(), expected.detach())


def test_the_terms_are_sums_over_the_prefixes():
    loss, inputs = matryoshka(within(WIDE, (2, 6)), (2, 6)), WIDE.inputs()
    terms = loss(**inputs, output_dict=True)
    assert list(terms) == [f"{term}_loss" for term in WEIGHTS]
    assert_close(sum(terms.values()).detach(), loss(**inputs).detach())


def products(call: Any, shape: tuple[int, int]) -> int:
    """How many matrix products of this shape ``call`` makes."""
    seen = []

    class Count(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            seen.append(function is torch.mm and result.shape == shape)
            return result

    with Count():
        call()
    return sum(seen)


def test_the_teachers_matrix_is_made_once():
    inputs = {key: value.requires_grad_() for key, value in WIDE.inputs().items()}
    loss = MatryoshkaLoss(CLIPKDLoss({"contrastive": 1.0, "crd": 1.0}, backend="dense"), [1, 2, 3, 6])
    assert products(lambda: loss(**inputs), (4, 4)) == 4 + 1


def test_what_is_beyond_the_widest_prefix_is_not_read():
    inputs = leaves(WIDE.inputs())
    MatryoshkaLoss(CRDLoss(), [2, 4])(**inputs).backward()
    assert not inputs["image_features"].grad[:, 4:].any()
    assert inputs["image_features"].grad[:, :2].all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bits_and_autocast(dtype):
    loss, inputs = matryoshka(within(WIDE, (2, 6)), (2, 6)).float(), WIDE.inputs(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(**inputs)
    assert value.dtype == torch.float32
    assert_close(value, loss(**{key: one.float() for key, one in inputs.items()}).detach())


@pytest.mark.slow
def test_shapes_on_the_meta_device():
    loss = matryoshka(within(WIDE, (2, 6)), (2, 6)).to("meta")
    assert loss(**{key: value.to("meta") for key, value in WIDE.inputs().items()}).is_meta


@pytest.mark.slow
def test_it_compiles_to_one_graph():
    torch._dynamo.reset()
    loss = matryoshka(within(WIDE, (2, 6), {"crd": 1.0, "icl": 1.0}), (2, 6))
    found = run(torch.compile(loss, fullgraph=True, backend="aot_eager"), WIDE.inputs())
    grads = {key.replace("_orig_mod.", ""): grad for key, grad in found.grads.items()}
    assert_same(Outcome(found.value, grads), run(loss, WIDE.inputs()))


def test_state_copies_and_scales():
    loss, file = matryoshka(within(WIDE, (2, 6)), (2, 6)), io.BytesIO()
    torch.save(loss.state_dict(), file)
    file.seek(0)
    fresh = MatryoshkaLoss(within(WIDE, (2, 6)), (2, 6)).double()
    fresh.load_state_dict(torch.load(file, weights_only=True))
    expected = loss(**WIDE.inputs())
    for one in (fresh, copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert torch.equal(one(**WIDE.inputs()), expected)
    scales = [loss.loss.cross_logit_scale, loss.prefixes["2"].cross_logit_scale]
    with torch.no_grad():
        [scale.fill_(9.0) for scale in scales]
    loss.clamp_scales()
    assert all(scale.exp() <= 100 for scale in scales)


@pytest.mark.parametrize("make", [lambda loss: loss, copy.deepcopy])
def test_one_warning_names_all_parameters_that_no_optimizer_holds(make):
    loss = make(MatryoshkaLoss(within(WIDE, (2, 6), {"icl": 1.0}), (2, 6)))
    with pytest.warns(kdlosses.UntrainedParametersWarning) as caught:
        run(loss, WIDE.inputs(torch.float32))
    (sentence,) = [str(one.message) for one in caught]
    assert sentence.startswith("MatryoshkaLoss (1 icl) has parameters of its own that no optimizer holds")
    assert all(name in sentence for name, _ in loss.named_parameters())


def test_it_says_what_it_is():
    assert "dims=(2, 6), weights=(1.0, 1.0)" in repr(MatryoshkaLoss(CRDLoss(), [2, 6]))


class TestRefusals:
    @pytest.mark.parametrize(
        ("dims", "words"),
        [
            ([], r"dims must be a list of widths, as in \[64, 128, 256\], got \[\]"),
            (64, "dims must be a list of widths"),
            ([4, 2], r"dims must ascend, each above the one before it, got \[4, 2\]"),
            ([4, 4], "dims must ascend"),
            ([0, 4], r"dims\[0\] must be a positive integer, got 0"),
            ([2.5], r"dims\[0\] must be a positive integer"),
            ([None], r"dims\[0\] must be a positive integer"),
        ],
    )
    def test_dims(self, dims, words):
        with pytest.raises(ValueError, match=words):
            MatryoshkaLoss(CRDLoss(), dims)

    @pytest.mark.parametrize(
        ("weights", "words"),
        [
            ([1.0], "weights of MatryoshkaLoss must have 2 entries, one for each of dims, got 1"),
            ([1.0, 0.0], "weight 1 of MatryoshkaLoss must be a finite number above zero, got 0.0"),
            ([1.0, float("nan")], "weight 1 of MatryoshkaLoss must be a finite number"),
            ([1.0, True], "weight 1 of MatryoshkaLoss must be a finite number"),
            (2.0, "weights of MatryoshkaLoss must be a list of numbers"),
        ],
    )
    def test_weights(self, weights, words):
        with pytest.raises(ValueError, match=words):
            MatryoshkaLoss(CRDLoss(), [2, 4], weights)

    @pytest.mark.parametrize(
        ("loss", "words"),
        [
            (nn.Identity(), "MatryoshkaLoss takes a loss of kdlosses, as in .* got Identity"),
            (CRDLoss, "takes a loss of kdlosses, as in .* got CRDLoss"),
            (FDLoss(), "gives each prefix a projection to the teacher's width for fd; build FDLoss with student_dim=6"),
            (FDLoss(student_dim=8, teacher_dim=4), "dims up to 6 but FDLoss was built with student_dim=8; build it"),
            (MatryoshkaLoss(CRDLoss(), [2]), "takes a loss that is not in a MatryoshkaLoss already"),
        ],
    )
    def test_the_loss_within(self, loss, words):
        with pytest.raises(ValueError, match=words):
            MatryoshkaLoss(loss, [2, 6])

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"image_features": torch.eye(4, 5)}, "prefixes of up to 6 numbers, but image_features has width 5; leave"),
            ({"masked_image_features": torch.eye(4, 5)}, "but masked_image_features has width 5"),
            ({"image_features": torch.ones(4)}, r"image_features must have shape \[B, D\]"),
            ({"text_features": None}, r"text_features must be a \[B, D\] tensor, got NoneType"),
            ({"dist_logit_scale": None}, "CRDLoss needs the teacher's outputs; missing: dist_logit_scale"),
        ],
    )
    def test_a_call(self, changes: dict[str, Tensor], words):
        with pytest.raises(ValueError, match=words):
            MatryoshkaLoss(CRDLoss(), [2, 6])(**WIDE.inputs() | changes)

    def test_a_prefix_on_another_device(self):
        loss = MatryoshkaLoss(within(WIDE, (2, 6)), [2, 6])
        loss.prefixes.to("meta")
        with pytest.raises(ValueError, match=r"MatryoshkaLoss's parameter prefixes\.2\.cross_logit_scale is on meta"):
            loss(**WIDE.inputs(torch.float32))
