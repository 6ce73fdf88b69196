"""BankLoss: queries of the student against keys that are no batch, by the teacher's softmax or by number."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import kdlosses
from kdlosses import backends
from kdlosses.bank.requests import BankCrossEntropy, BankKL, Keys
from kdlosses.bank.softmax import cross_entropies, divergences
from kdlosses.relation import Relation
from kdlosses.rows import rows_of
from tests import oracles, strategies
from tests.problems import BIASES, STUDENT, TEACHER, Inputs, Problem, seeded
from tests.running import UPSTREAM, Outcome, assert_same, assert_teacher_untouched, build, leaves, run
from tests.tolerance import assert_close

MIXED = Problem(student_dim=4, teacher_dim=6)
NUM_KEYS = 7
TARGETS = torch.tensor([[0, 6, -1], [3, -1, -1], [-1, -1, -1], [5, 5, 2], [-1, 4, 1]])
BACKENDS = ("dense", "reference", "auto", backends.create("chunked", chunk_size=2))


def keys(problem: Problem, count: int = NUM_KEYS) -> tuple[Tensor, Tensor]:
    """Of images and of texts, of several lengths."""
    generator = seeded(problem.seed + 50)
    shape = (2, count, problem.teacher_dim)
    return tuple((3 * torch.randn(shape, generator=generator, dtype=torch.float64)).unbind())


def made(problem: Problem, given: tuple[Tensor, ...] = (), **options: Any) -> kdlosses.BankLoss:
    loss = build("bank", problem, **options)
    if given:
        loss.set_keys(*given)
    return loss


def by_the_oracle(oracle: Any, loss: kdlosses.BankLoss, problem: Problem, *arguments: Any, **keywords: Any) -> Outcome:
    inputs = leaves(problem.inputs())
    params = leaves({key: value.detach() for key, value in loss.named_parameters()})
    student, teacher = [inputs[key] for key in STUDENT], [inputs[key].detach() for key in TEACHER]
    value = oracle(oracles.World(*student, *teacher, params=params, variant="paper"), *arguments, **keywords)
    (UPSTREAM * value).backward()
    return Outcome(value.detach(), {key: leaf.grad for key, leaf in (inputs | named(params)).items()})


def named(params: Inputs) -> Inputs:
    return {f"param.{key}": value for key, value in params.items()}


@settings(max_examples=6)
@given(problem=strategies.problems(max_batch=6), filled=st.integers(0, NUM_KEYS))
def test_a_queue_is_the_kl_over_the_batch_and_what_is_in_it(problem, filled):
    given = keys(problem, filled)
    expected = None
    for backend in BACKENDS:
        loss = made(problem, given if filled else (), queue_size=NUM_KEYS, backend=backend).eval()
        outcome = run(loss, problem.inputs())
        expected = expected or by_the_oracle(oracles.bank_kl, loss, problem, *given, batch=True)
        assert_same(outcome, expected)
        assert_teacher_untouched(outcome)


@settings(max_examples=5)
@given(problem=strategies.problems())
def test_set_keys_are_all_the_keys_there_are(problem):
    for backend in BACKENDS:
        loss = made(problem, keys(problem), num_keys=NUM_KEYS, backend=backend)
        assert_same(
            run(loss, problem.inputs()), by_the_oracle(oracles.bank_kl, loss, problem, *keys(problem), batch=False)
        )


@pytest.mark.parametrize("backend", BACKENDS, ids=str)
def test_by_number_it_is_the_mean_cross_entropy_to_each_target(backend):
    loss = made(MIXED, keys(MIXED), num_keys=NUM_KEYS, targets="index", backend=backend)
    inputs = {key: value for key, value in MIXED.inputs().items() if not key.startswith("dist_")}
    student = leaves(inputs)
    value = loss(**student, bank_targets=TARGETS)
    (UPSTREAM * value).backward()
    grads = {key: leaf.grad for key, leaf in student.items()}
    outcome = Outcome(value.detach(), grads | {f"param.{key}": p.grad for key, p in loss.named_parameters()})
    own = [[k for k in row if k >= 0] for row in TARGETS.tolist()]
    expected = by_the_oracle(oracles.bank_index, loss, MIXED, *keys(MIXED), own)
    here = {key: value for key, value in expected.grads.items() if key not in (*TEACHER, BIASES[1])}
    assert_same(outcome, Outcome(expected.value, here))


def test_one_target_a_row_is_the_same_in_a_list_of_one():
    loss = made(Problem(), keys(Problem()), num_keys=NUM_KEYS, targets="index")
    numbers, inputs = torch.tensor([0, 3, 6, 3, 1], dtype=torch.int32), Problem().inputs()
    assert torch.equal(loss(**inputs, bank_targets=numbers), loss(**inputs, bank_targets=numbers[:, None].long()))


def test_images_alone_at_constant_scales():
    inputs = Problem().inputs()
    alone = made(
        Problem(), keys(Problem())[:1], num_keys=NUM_KEYS, queries="image", student_scale=9.0, teacher_scale=5.0
    )
    outcome = run(alone, inputs)
    assert outcome.grads["text_features"] is outcome.grads["logit_scale"] is None
    both = made(Problem(), keys(Problem())[:1], num_keys=NUM_KEYS, student_scale=9.0, teacher_scale=5.0)
    twins = {key.replace("text", "image"): value for key, value in inputs.items() if "image" in key}
    same = inputs | {key.replace("image", "text"): value for key, value in twins.items()}
    assert_close(both(**same), outcome.value)
    assert torch.equal(alone(**inputs | {"logit_scale": torch.tensor(1.0)}), outcome.value)


def test_images_alone_need_no_texts_and_have_no_projection_of_them():
    loss, inputs = build("bank", MIXED, queue_size=7, queries="image"), MIXED.inputs()
    assert set(loss.state_dict()) == {
        *("visual_proj.weight", "visual_proj.bias", "term_state.bank.image_keys", "term_state.bank.count")
    }
    without = {**inputs, "text_features": None, "dist_text_features": None}
    for _ in range(2):
        still = copy.deepcopy(loss)
        assert torch.equal(loss(**inputs), still(**without))
        assert torch.equal(loss.bank.image_keys, still.bank.image_keys)


def test_each_pair_by_itself():
    inputs = MIXED.inputs()
    whole = made(MIXED, keys(MIXED), queue_size=9).eval()
    alone = made(MIXED, keys(MIXED), queue_size=9, reduction="none").eval()
    assert alone(**inputs).shape == (5,)
    assert_close(alone(**inputs).mean(), whole(**inputs))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_sure_row_keeps_its_digits(dtype):
    """At scale 100 a matched row's cross-entropy is e^-100: one minus its probability would be zero."""
    student = torch.eye(3, dtype=dtype)
    values, slopes = cross_entropies(
        student, torch.tensor(60.0, dtype=dtype), student, torch.arange(3)[:, None], None, True
    )
    rest = 2 * torch.exp(torch.tensor(-60.0, dtype=torch.float64))
    assert_close(values / rest, torch.ones(3), torch.float32)
    assert_close(slopes / rest, (torch.full((3, 3), 0.5) - 1.5 * torch.eye(3)), torch.float32)


def test_a_student_close_to_its_teacher_keeps_the_digits_of_their_distance():
    generator = seeded()
    teacher, keys_ = (torch.nn.functional.normalize(torch.randn(6, 8, generator=generator), dim=1) for _ in range(2))
    scale, other = torch.tensor(10.0), torch.tensor(10.0 * (1 + 2.0**-8))
    found, slopes = divergences(teacher, other, teacher, scale, keys_, None, None, True)
    wide = [one.double() for one in (teacher, other, teacher, scale, keys_)]
    exact, exact_slopes = divergences(*wide, None, None, True)
    assert exact.max() < 1e-5
    assert ((found - exact).abs() / exact).max() < 0.05
    assert (slopes - exact_slopes).norm() / exact_slopes.norm() < 0.01


def test_the_queue_takes_each_batch_in_and_lets_the_oldest_go():
    loss, problem = build("bank", Problem(batch=3), queue_size=7), Problem(batch=3)
    given = []
    for seed in range(5):
        inputs = problem.with_(seed=seed).inputs()
        before = copy.deepcopy(loss.state_dict())
        loss.eval()
        silent = loss(**inputs)
        assert all(torch.equal(before[key], value) for key, value in loss.state_dict().items())
        loss.train()
        assert torch.equal(loss(**inputs), silent), "a batch is taken in after its own call"
        given.append(inputs["dist_text_features"])
        assert loss.bank.count == 3 * len(given)
        rows = torch.cat(given)[-7:]
        order = torch.arange(3 * len(given) - len(rows), 3 * len(given)) % 7
        assert torch.equal(loss.bank.text_keys[order], rows)
    loss(**Problem(batch=9).inputs())  # more than there is room for
    order = (torch.arange(2, 9) + 15) % 7
    assert torch.equal(loss.bank.image_keys[order], Problem(batch=9).inputs()["dist_image_features"][2:])


def test_a_batch_in_the_queue_does_not_touch_the_gradient_of_the_call_before():
    """The queue is written to between forward and backward."""
    for backend in BACKENDS:
        loss, inputs = made(MIXED, keys(MIXED), queue_size=NUM_KEYS, backend=backend), MIXED.inputs()
        still = copy.deepcopy(loss).eval()
        assert_same(run(loss, inputs), run(still, inputs))


def test_a_broken_row_of_the_teachers_does_not_stay_in_the_queue():
    loss, inputs = build("bank", Problem(), queue_size=20), Problem().inputs()
    inputs["dist_image_features"][2, 1] = torch.nan
    assert loss(**inputs).isnan()
    assert loss(**Problem().inputs()).isfinite()


def test_it_goes_on_where_it_was_saved(tmp_path):
    loss, inputs = build("bank", MIXED, queue_size=12), MIXED.inputs()
    for _ in range(3):
        loss(**inputs)
    torch.save(loss.state_dict(), tmp_path / "loss.pt")
    fresh = kdlosses.BankLoss(queue_size=12, **MIXED.dims).double()
    fresh.load_state_dict(torch.load(tmp_path / "loss.pt", weights_only=True))
    for seed in range(2):
        again = MIXED.with_(seed=seed).inputs()
        assert torch.equal(fresh(**again), loss(**again))
    for key, value in fresh.state_dict().items():
        assert torch.equal(value, loss.state_dict()[key])


def test_keys_that_were_set_come_with_the_state_dict():
    loss = made(Problem(), keys(Problem()), num_keys=NUM_KEYS)
    fresh = kdlosses.BankLoss(num_keys=NUM_KEYS, **Problem().dims).double()
    fresh.load_state_dict(loss.state_dict())
    assert torch.equal(fresh(**Problem().inputs()), loss(**Problem().inputs()))


def test_in_a_sum_each_bank_has_keys_of_its_own():
    weights = {"contrastive": 1.0, "recent": 2.0, "bank": 0.5}
    loss = kdlosses.CLIPKDLoss(
        weights,
        terms={"recent": {"loss": "bank", "queue_size": 9}},
        options={"bank": {"num_keys": 7}},
        **Problem().dims,
    ).double()
    loss.term_state["bank"].set_keys(*keys(Problem()))
    inputs = Problem().inputs()
    found = loss(**inputs, output_dict=True)
    assert_close(found["bank_loss"], 0.5 * made(Problem(), keys(Problem()), num_keys=7)(**inputs))
    assert_close(found["recent_loss"], 2 * made(Problem(), queue_size=9)(**inputs))
    assert loss.term_state["recent"].count == 5 and "recent(bank, queue_size=9)" in repr(loss)


def test_several_teachers_have_a_queue_each():
    loss = kdlosses.MultiTeacherLoss(
        {"bank": 1.0}, options={"bank": {"queue_size": 8}}, student_dim=4, teacher_dims=[6, 4], teacher_weights=[3, 1]
    ).double()
    inputs, other = MIXED.inputs(), Problem(student_dim=4, teacher_dim=4, seed=3).inputs()
    several = inputs | {key: [inputs[key], other[key]] for key in (*TEACHER, BIASES[1])}
    alone = [kdlosses.BankLoss(queue_size=8, student_dim=4, teacher_dim=width).double() for width in (6, 4)]
    for one, layers in zip(alone, loss.teachers, strict=True):
        one.load_state_dict(layers.state_dict())
    for _ in range(3):
        expected = 0.75 * alone[0](**inputs) + 0.25 * alone[1](**inputs | {key: other[key] for key in TEACHER})
        assert_close(loss(**several), expected)


def test_autocast_and_sixteen_bits():
    problem = MIXED.with_(scale=8.0)
    exact = made(problem, keys(problem), queue_size=9).eval()
    half = copy.deepcopy(exact).float()
    inputs = problem.inputs(torch.bfloat16)
    expected = run(exact, {key: value.double() for key, value in inputs.items()})
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close(half(**inputs), expected.value, torch.float32)
    found = run(half, inputs)
    for key in STUDENT:
        assert found.grads[key].dtype == torch.bfloat16
        assert_close(found.grads[key], expected.grads[key], torch.bfloat16)


def test_on_the_meta_device():
    with torch.device("meta"):
        for options in ({"queue_size": 2**40}, {"num_keys": 12, "targets": "index"}):
            loss = kdlosses.BankLoss(**options, student_dim=8, teacher_dim=16)
            if "num_keys" in options:
                loss.set_keys(torch.empty(12, 16))
            student = [torch.empty(6, 8, requires_grad=True) for _ in range(2)]
            teacher = [torch.empty(6, 16) for _ in range(2)]
            if "num_keys" not in options:
                loss = kdlosses.BankLoss(queue_size=64, student_dim=8, teacher_dim=16)
            value = loss(*student, 10.0, *teacher, 10.0, bank_targets=torch.empty(6, 2, dtype=torch.int64))
            value.backward()
            assert value.shape == () and student[0].grad.shape == (6, 8)


def test_second_derivatives_are_refused_but_by_the_definitions():
    inputs = leaves(Problem().inputs())
    loss = made(Problem(), keys(Problem()), num_keys=NUM_KEYS)
    (gradient,) = torch.autograd.grad(loss(**inputs), inputs["image_features"], create_graph=True)
    with pytest.raises(RuntimeError, match="cannot be differentiated again"):
        gradient.sum().backward()
    exact = made(Problem(), keys(Problem()), num_keys=NUM_KEYS, backend="reference")
    (gradient,) = torch.autograd.grad(exact(**inputs), inputs["image_features"], create_graph=True)
    gradient.sum().backward()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "targets"), [("dense", "teacher"), (backends.create("chunked", chunk_size=3), "index")], ids=str
)
def test_one_graph_with_the_same_values_and_gradients(backend, targets):
    torch._dynamo.reset()
    options = {"num_keys": NUM_KEYS} if targets == "index" else {"queue_size": NUM_KEYS}
    loss = made(MIXED, keys(MIXED), **options, targets=targets, backend=backend)
    eager = copy.deepcopy(loss)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager", dynamic=True)
    for batch in (5, 3, 4):
        inputs = MIXED.with_(batch=batch).inputs()
        given, own = leaves(inputs), leaves(inputs)
        extra = {"bank_targets": TARGETS[:batch]} if targets == "index" else {}
        value, expected = compiled(**given, **extra), eager(**own, **extra)
        assert torch.equal(value, expected)
        value.backward(), expected.backward()
        for key in STUDENT:
            assert_close(given[key].grad, own[key].grad)
    assert all(torch.equal(value, eager.state_dict()[key]) for key, value in loss.state_dict().items())


@settings(max_examples=8)
@given(size=st.integers(1, 5), seed=st.integers(0, 100))
def test_any_size_of_tile_gives_the_definition(size, seed):
    problem = Problem(batch=6, seed=seed)
    inputs, own = leaves(problem.inputs()), keys(problem)[0]
    student, teacher = (rows_of(inputs[f"{side}image_features"], torch.float64, True) for side in ("", "dist_"))
    scale, teacher_scale = inputs["logit_scale"], inputs["dist_logit_scale"].detach()
    batch = Relation(student, teacher, scale)
    bank = Keys(own, torch.tensor(seed % 8))
    numbers = torch.randint(-1, NUM_KEYS, (6, 2), generator=seeded(seed))
    for request in (
        BankKL(student, scale, teacher.constant(), teacher_scale, bank, batch),
        BankCrossEntropy(student, scale, Keys(own), numbers),
    ):
        results = []
        for values in (request.answer(), request.solve(size), request.solve(None)):
            slopes = torch.autograd.grad(values.sum(), (inputs["image_features"], scale), retain_graph=True)
            results.append((values, *slopes))
        for found in results[1:]:
            for ours, theirs in zip(found, results[0], strict=True):
                assert_close(ours, theirs)


@pytest.mark.parametrize(
    "options, said",
    [
        ({}, "a bank needs keys: either num_keys=K, .* or queue_size=K"),
        ({"num_keys": 0}, "a bank needs keys"),
        ({"num_keys": 3, "queue_size": 3}, "got num_keys=3, queue_size=3"),
        ({"num_keys": 2.5}, "num_keys of term 'bank' must be a whole number"),
        ({"queue_size": 4, "targets": "index"}, "targets='index' needs num_keys=K and set_keys"),
        ({"num_keys": 4, "queries": "images"}, "queries of term 'bank' must be one of 'both', 'image', 'text'"),
        ({"num_keys": 4, "student_dim": None, "teacher_dim": None}, "must know the width of its keys"),
        ({"queue_size": 2**40}, "a bank of 1099511627776 keys of width 6 .* GiB of memory; take fewer keys"),
    ],
)
def test_a_bank_that_cannot_be(options, said):
    with pytest.raises(ValueError, match=said):
        kdlosses.BankLoss(**{**MIXED.dims, **options})


@pytest.mark.parametrize(
    "given, said",
    [
        ([torch.ones(6, 6)], r"keys must be 7 rows of the teacher's width 6, got \[6, 6\]"),
        ([torch.ones(7, 4)], r"keys must be 7 rows of the teacher's width 6, got \[7, 4\]"),
        ([torch.ones(7, 6), torch.ones(7, 5)], "keys for text queries must be 7 rows"),
        ([torch.full((7, 6), torch.inf)], "keys must be finite; 7 rows are not"),
        ([torch.ones(7, 6, dtype=torch.int64)], "keys must be floating point"),
        ([torch.ones(7, 6)] * 3, "set_keys takes one tensor or 2, for image, text, got 3"),
        ([], "set_keys takes one tensor or 2, for image, text, got 0"),
    ],
)
def test_keys_that_do_not_fit(given, said):
    with pytest.raises(ValueError, match=said):
        kdlosses.BankLoss(num_keys=7, **MIXED.dims).set_keys(*given)


def test_a_call_without_keys():
    with pytest.raises(ValueError, match="BankLoss has a bank without keys: give it its 7 keys of width 6"):
        build("bank", MIXED, num_keys=7)(**MIXED.inputs())


@pytest.mark.parametrize(
    "targets, said",
    [
        (None, "needs bank_targets, which is missing"),
        ([0, 1, 2, 3, 4], "must be a .B. or .B, P. tensor of integers, got list"),
        (torch.arange(5.0), "tensor of integers, got torch.float32"),
        (torch.arange(4), r"with B = 5, as image_features has, got \[4\]"),
        (torch.zeros(5, 0, dtype=torch.int64), r"got \[5, 0\]"),
        (torch.tensor([0, 1, 2, 3, 7]), "numbers of the bank's 7 keys, 0 to 6, or -1 for none, got 7"),
        (torch.tensor([0, 1, -2, 3, 6]), "got -2"),
    ],
)
def test_targets_that_do_not_fit(targets, said):
    loss = made(Problem(), keys(Problem()), num_keys=7, targets="index")
    student = {key: Problem().inputs()[key] for key in STUDENT}
    with pytest.raises(ValueError, match=said):
        loss(**student, bank_targets=targets)


def test_a_loss_around_others_takes_no_bank():
    within = kdlosses.CLIPKDLoss({"crd": 1.0, "bank": 1.0}, options={"bank": {"queue_size": 3}}, **Problem().dims)
    with pytest.raises(ValueError, match=r"cannot take terms that keep a state between calls, .*: bank"):
        kdlosses.MatryoshkaLoss(within, [2, 6])


def test_keys_on_another_device():
    loss = kdlosses.BankLoss(queue_size=3, **Problem().dims)
    loss.term_state.to("meta")
    with pytest.raises(ValueError, match=r"buffer term_state.bank.image_keys is on meta but"):
        loss(**Problem().inputs())
