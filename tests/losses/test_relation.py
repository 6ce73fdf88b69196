"""RelationLoss: softmax similarities of any two sides; the losses that are cases of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings

import kdlosses
from kdlosses import backends
from tests import oracles, strategies
from tests.distributed.cases import multi_teacher, of_teachers
from tests.grid import tiers
from tests.problems import STUDENT, TEACHER, Inputs, Problem, student_is_teacher
from tests.running import UPSTREAM, Outcome, assert_gradcheck, assert_same, assert_teacher_untouched, build, leaves, run
from tests.tolerance import assert_close

MIXED = Problem(student_dim=4, teacher_dim=6)
# Every side, divergence and choice, and each with each kind of relation.
CHOICES: list[dict[str, Any]] = [
    {},
    {"queries": "text", "keys": "text", "divergence": "ce"},
    {"divergence": "reverse_kl", "teacher_scale": 9.0},
    {"keys": "text", "divergence": "reverse_kl", "student_scale": 5.0},
    {"keys": "text", "exclude_diagonal": True},
    {"exclude_diagonal": False, "both_directions": True},
    {"queries": "text", "keys": "image", "both_directions": False, "divergence": "ce"},
    {"keys": "teacher_text"},
    {"queries": "teacher_text", "keys": "text", "exclude_diagonal": True, "divergence": "reverse_kl"},
    {"keys": "teacher_image", "teacher_queries": "teacher_image", "teacher_keys": "teacher_image"},
    {"keys": "text", "teacher_queries": "teacher_text", "teacher_keys": "teacher_image", "divergence": "ce"},
]
IDS = ["+".join(f"{value}" for value in one.values()) or "default" for one in CHOICES]
FEW = [CHOICES[0], CHOICES[2], CHOICES[4], CHOICES[8]]
each_choice = pytest.mark.parametrize("chosen", CHOICES, ids=IDS)


def expected(loss: torch.nn.Module, inputs: Inputs, chosen: dict[str, Any]) -> Outcome:
    """The oracle's value and gradients."""
    held = leaves(inputs)
    params = leaves(dict(loss.named_parameters()))
    world = oracles.World(
        *(held[key] for key in STUDENT), *(held[key].detach() for key in TEACHER), params=params, variant="paper"
    )
    value = oracles.relation(world, **chosen)
    (UPSTREAM * value).backward()
    grads = {key: leaf.grad for key, leaf in held.items()}
    return Outcome(value.detach(), grads | {f"param.{key}": leaf.grad for key, leaf in params.items()})


@pytest.mark.parametrize("chosen", tiers(CHOICES, FEW), ids=IDS)
@settings(max_examples=8)
@given(problem=strategies.problems())
def test_value_and_gradients(chosen, problem):
    loss, inputs = build("relation", problem, **chosen), problem.inputs()
    found = run(loss, inputs)
    assert_same(found, expected(loss, inputs, chosen))
    assert_teacher_untouched(found)


@each_choice
@pytest.mark.parametrize("backend", ["chunked-2", "reference"])
def test_on_other_backends(backend, chosen):
    made = backends.create("chunked", chunk_size=2) if backend == "chunked-2" else backend
    loss, inputs = build("relation", MIXED, backend=made, **chosen), MIXED.inputs()
    assert_same(run(loss, inputs), expected(loss, inputs, chosen))


@pytest.mark.slow
@each_choice
def test_gradcheck(chosen):
    assert_gradcheck("relation", Problem(batch=3, student_dim=4, teacher_dim=3), **chosen)


@pytest.mark.parametrize("backend", ["dense", "chunked"])
@pytest.mark.parametrize(("divergence", "name"), [("kl", "crd"), ("ce", "affinity")])
def test_crd_and_affinity_are_cases_of_it(divergence, name, backend):
    inputs = MIXED.inputs()
    relation = kdlosses.RelationLoss(queries="image", keys="text", divergence=divergence, backend=backend)
    found, wanted = run(relation, inputs), run(kdlosses.build(name, backend=backend), inputs)
    assert torch.equal(found.value, wanted.value)
    for key, grad in wanted.grads.items():
        assert (grad is None and found.grads[key] is None) or torch.equal(found.grads[key], grad)


def test_cross_kd_is_the_mean_of_two():
    sides = {"images": ("image", "teacher_text"), "texts": ("text", "teacher_image")}
    terms = {
        name: {"loss": "relation", "queries": queries, "keys": keys, "both_directions": False}
        for name, (queries, keys) in sides.items()
    }
    two = kdlosses.CLIPKDLoss(dict.fromkeys(terms, 0.5), terms=terms, **MIXED.dims).double()
    one = build("cross_kd", MIXED)
    two.load_state_dict({key: value for key, value in one.state_dict().items() if key != "cross_logit_scale"})
    inputs = MIXED.inputs()
    found = run(two, inputs | {"logit_scale": one.cross_logit_scale.detach().exp()})
    wanted = run(one, inputs)
    assert_close(found.value, wanted.value)
    assert_close(found.grads["logit_scale"] * one.cross_logit_scale.exp(), wanted.grads["param.cross_logit_scale"])
    for key in ("image_features", "text_features", *(f"param.{name}" for name, _ in two.named_parameters())):
        assert_close(found.grads[key], wanted.grads[key])


@given(problem=strategies.problems(same_width=True))
def test_nothing_is_left_at_the_teacher(problem):
    inputs = student_is_teacher(problem.inputs())
    for chosen in CHOICES[:1] + CHOICES[2:3] + CHOICES[4:5]:
        same = {key: None for key in chosen if key.endswith("scale")}
        found = run(kdlosses.RelationLoss(**{**chosen, **same}), inputs)
        assert abs(found.value) < 1e-10
        assert found.grads["image_features"].abs().max() < 1e-8


def test_several_teachers_are_averaged_before_the_divergence():
    """As crd's are; the divergence from the average, less what the teachers disagree about, is zero at the average."""
    inputs = of_teachers()
    found = run(multi_teacher(weights={"one": 1.0}, terms={"one": {"loss": "relation", "keys": "text"}}), inputs)
    wanted = run(multi_teacher(weights={"crd": 1.0}), inputs)
    assert_close(found.value, wanted.value)
    assert_close(found.grads["text_features"], wanted.grads["text_features"])
    for chosen in ({}, {"keys": "teacher_image"}, {"divergence": "reverse_kl"}):
        one = {"loss": "relation", **chosen}
        made = [multi_teacher(weights={"one": 1.0}, terms={"one": one}, backend=b) for b in ("dense", "reference")]
        made[1].load_state_dict(made[0].state_dict())
        assert_same(*(run(loss, inputs) for loss in made))


@pytest.mark.parametrize(
    ("chosen", "own", "reads", "scale"),
    [
        ({}, False, True, True),
        ({"student_scale": 5.0}, False, False, True),
        ({"teacher_scale": 5.0}, False, True, False),
        ({"keys": "teacher_text"}, True, True, True),
    ],
)
def test_it_needs_what_its_options_read(chosen, own, reads, scale):
    """Projections, the teacher's scale, and the student's; what recipes make of it is in tests/harness/test_task.py."""
    loss, inputs = build("relation", MIXED, **chosen), MIXED.inputs()
    assert bool(list(loss.parameters())) == own
    assert reads == (run(loss, inputs).grads["logit_scale"] is not None)
    del inputs["dist_logit_scale"]
    if scale:
        with pytest.raises(ValueError, match="missing: dist_logit_scale"):
            loss(**inputs)
    else:
        assert loss(**inputs).isfinite()


@pytest.mark.parametrize(
    ("chosen", "says"),
    [
        ({"queries": "teacher_image", "keys": "teacher_text"}, "has nothing to train: queries or keys must be the stu"),
        ({"queries": "images"}, "option queries of term 'relation' must be one of 'image', 'text', 'teacher_image'"),
        ({"teacher_keys": "text"}, "option teacher_keys of term 'relation' must be one of None, 'teacher_image'"),
        ({"divergence": "js"}, "must be one of 'kl', 'ce', 'reverse_kl', got 'js'"),
        ({"exclude_diagonal": 1}, "must be one of None, True, False, got 1"),
        ({"student_scale": 0}, "must be a finite number above zero"),
    ],
)
def test_what_makes_no_sense_is_refused(chosen, says):
    with pytest.raises(ValueError, match=says):
        kdlosses.RelationLoss(**chosen)


@pytest.mark.slow
@pytest.mark.parametrize("chosen", FEW)
def test_compiled(chosen):
    torch._dynamo.reset()
    loss, inputs = build("relation", MIXED, **chosen), MIXED.inputs()
    found = run(torch.compile(loss, fullgraph=True, backend="aot_eager"), inputs)
    plain = run(loss, inputs)
    grads = {key.replace("_orig_mod.", ""): grad for key, grad in found.grads.items()}
    assert_same(Outcome(found.value, grads), plain)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_inputs_are_widened(dtype):
    inputs = MIXED.inputs(dtype)
    wide = {key: value.float() for key, value in inputs.items()}
    for chosen in ({"keys": "teacher_text"}, {"divergence": "reverse_kl"}):
        loss = build("relation", MIXED, dtype=torch.float32, **chosen)
        assert torch.equal(loss(**inputs), loss(**wide))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(loss(**inputs), loss(**wide))


def test_images_among_themselves_need_no_texts():
    inputs = MIXED.inputs()
    wanted = run(kdlosses.RelationLoss(), inputs)
    without = {key: value for key, value in inputs.items() if "text" not in key}
    image = without.pop("image_features").requires_grad_()
    value = kdlosses.RelationLoss()(image, None, **without)
    (UPSTREAM * value).backward()
    assert torch.equal(value, wanted.value) and torch.equal(image.grad, wanted.grads["image_features"])


def test_of_the_students_sides_alone_there_are_projections():
    """One that nothing reads would never be trained."""
    for chosen, own in (({"keys": "teacher_text"}, "visual"), ({"queries": "teacher_image", "keys": "text"}, "text")):
        loss = build("relation", MIXED, **chosen)
        found = run(loss, MIXED.inputs())
        assert {name.partition("_")[0] for name, _ in loss.named_parameters()} == {own}
        assert all(grad is not None for key, grad in found.grads.items() if key.startswith("param"))
