"""Options of terms: alone, in sums and with several teachers they are the same; what is wrong is one ValueError."""

from __future__ import annotations

import copy
from typing import ClassVar

import pytest
import torch

import kdlosses
from harness.config.term_options import what_is_wrong
from kdlosses import Term
from kdlosses.options import resolved
from tests.distributed.cases import TEACHERS, multi_teacher, of_teachers
from tests.problems import Problem
from tests.running import assert_same, build, run
from tests.tolerance import assert_close

MIXED = Problem(student_dim=4, teacher_dim=6)
SCALES = [{"student_scale": 5.0}, {"teacher_scale": 50.0}, {"student_scale": 7.0, "teacher_scale": 3.0}]
KEYWORDS = {"student_scale": "logit_scale", "teacher_scale": "dist_logit_scale"}
each_choice = pytest.mark.parametrize("chosen", SCALES, ids="+".join)


@each_choice
def test_a_scale_replaces_the_models(chosen):
    inputs = MIXED.inputs()
    found = run(kdlosses.AffinityLoss(**chosen), inputs)
    scales = {KEYWORDS[name]: torch.tensor(value, dtype=torch.float64) for name, value in chosen.items()}
    expected = run(kdlosses.AffinityLoss(), inputs | scales)
    assert_close(found.value, expected.value)
    assert_close(found.grads["image_features"], expected.grads["image_features"])
    assert (found.grads["logit_scale"] is None) == ("student_scale" in chosen)


@each_choice
def test_in_a_sum_it_is_of_that_term_alone(chosen):
    inputs, weights = MIXED.inputs(), {"crd": 2.0, "affinity": 3.0, "contrastive": 1.0}
    terms = kdlosses.CLIPKDLoss(weights, options={"affinity": chosen})(**inputs, output_dict=True)
    plain = kdlosses.CLIPKDLoss(weights)(**inputs, output_dict=True)
    assert_close(terms["affinity_loss"], 3.0 * kdlosses.AffinityLoss(**chosen)(**inputs))
    assert terms["affinity_loss"] != plain["affinity_loss"]
    assert_close(terms["crd_loss"], plain["crd_loss"])
    assert_close(terms["contrastive_loss"], plain["contrastive_loss"])


def test_of_several_teachers_every_one_has_it():
    inputs = of_teachers()
    scales = {f"dist_logit_scale[{number}]": torch.tensor(30.0).double() for number in range(len(TEACHERS))}
    weights = {"affinity": 1.0, "crd": 1.0}
    loss = multi_teacher(weights=weights, options={"affinity": {"teacher_scale": 30.0}}).loss
    assert loss.term_options == {"affinity": {"student_scale": None, "teacher_scale": 30.0}}
    own = multi_teacher(weights={"affinity": 1.0}, options={"affinity": {"teacher_scale": 30.0}})
    found, expected = run(own, inputs), run(multi_teacher(weights={"affinity": 1.0}), inputs | scales)
    assert_same(found, expected)


def test_several_teachers_share_the_students_matrix_at_its_own_scale():
    pairs = []

    class Watched:
        name = "watched"

        @staticmethod
        def unavailable() -> None:
            return None

        def evaluate(self, requests):
            pairs.extend(request.student.source or request.student for request in requests)
            return kdlosses.backends.create("dense").evaluate(requests)

    options = {"affinity": {"student_scale": 30.0}}
    multi_teacher(weights={"affinity": 1.0}, options=options, backend=Watched())(**of_teachers())
    assert len({id(relation) for relation in pairs}) == 1


def test_none_is_no_option_and_a_term_without_weight_leaves_its_options_behind():
    inputs = MIXED.inputs()
    assert torch.equal(kdlosses.AffinityLoss(teacher_scale=None)(**inputs), kdlosses.AffinityLoss()(**inputs))
    loss = kdlosses.CLIPKDLoss({"crd": 1.0, "affinity": 0.0}, options={"affinity": {"teacher_scale": 9}})
    assert loss.term_options == {}
    assert kdlosses.CLIPKDLoss({"crd": 1.0}, options={"crd": {}}).term_options == {}


NAMED = {"soft": {"loss": "affinity", "teacher_scale": 50.0}, "sharp": {"loss": "affinity", "student_scale": 3.0}}


@pytest.mark.parametrize("several", [False, True], ids=["one teacher", "several"])
def test_a_term_is_in_a_sum_several_times_under_names_of_the_callers(several):
    inputs, weights = of_teachers() if several else MIXED.inputs(), {"soft": 1.0, "crd": 2.0, "sharp": 3.0}
    make = multi_teacher if several else kdlosses.CLIPKDLoss
    called = make(weights=weights, terms=NAMED)
    found = called(**inputs, output_dict=True)
    assert list(found) == ["soft_loss", "crd_loss", "sharp_loss"]
    for name, one in NAMED.items():
        own = {option: value for option, value in one.items() if option != "loss"}
        alone = make(weights={"affinity": weights[name]}, options={"affinity": own})
        assert torch.equal(found[f"{name}_loss"], alone(**inputs))
    loss = called.loss if several else called
    assert loss.reading("teacher_scale") == ("soft", "crd", "sharp")
    assert "1 soft(affinity, teacher_scale=50) + 2 crd + 3 sharp(affinity, student_scale=3)" in repr(loss)


@pytest.mark.parametrize(
    ("terms", "words"),
    [
        ([], "terms must map names of your own to terms, as in .*got list"),
        ({"two words": {"loss": "crd"}}, "a name in terms must be a word"),
        ({"crd": {"loss": "affinity"}}, "terms define 'crd', which is the name of a loss"),
        ({"soft": {"teacher_scale": 3}}, "terms\\['soft'\\] must have the key 'loss' and options"),
        ({"soft": {"loss": "affinty"}}, "loss 'affinty' is unknown; .*did you mean 'affinity'"),
        ({"soft": {"loss": "affinity", "scale": 3}}, "option of term 'soft' 'scale' is unknown"),
        ({"soft": {"loss": "affinity", "teacher_scale": 3}}, "teacher_scale of term 'soft' stands in terms and in opt"),
        ({"soft": {"loss": "affinity"}, "more": {"loss": "crd"}}, "terms define 'more', which has no weight"),
    ],
)
def test_wrong_terms_are_told(terms, words):
    with pytest.raises(ValueError, match=words):
        kdlosses.CLIPKDLoss({"soft": 1.0}, terms=terms, options={"soft": {"teacher_scale": 5.0}})


class Optioned(Term):
    name = "optioned"
    options: ClassVar[dict] = {
        "scale": None, "beta": 1.0, "count": 2, "flag": False, "kind": ("kl", "ce", None), "parts": {"a": 1.0, "b": 2.0}
    }  # fmt: skip

    def check(self, options):
        if options["beta"] > 9:
            raise ValueError("beta is beyond 9")


KINDS = [
    ({}, {"scale": None, "beta": 1.0, "count": 2, "flag": False, "kind": "kl", "parts": {"a": 1.0, "b": 2.0}}, None),
    (
        {"beta": -3, "count": 0, "flag": True, "kind": None},
        {"beta": -3.0, "count": 0, "flag": True, "kind": None},
        None,
    ),
    ({"parts": ["b"]}, {"parts": {"b": 2.0}}, None),
    ({"parts": {"a": 0, "b": 3}}, {"parts": {"a": 0.0, "b": 3.0}}, None),
    ({"beta": float("inf")}, None, "option beta of term 'mine' must be a finite number, got inf"),
    ({"beta": 10}, None, "beta is beyond 9"),
    ({"count": 1.5}, None, "count of term 'mine' must be a whole number"),
    ({"count": -1}, None, "whole number, zero or more"),
    ({"flag": 1}, None, "flag of term 'mine' must be True or False"),
    ({"kind": "mse"}, None, "kind of term 'mine' must be one of 'kl', 'ce', None"),
    ({"parts": []}, None, "parts of term 'mine' must name some of a, b"),
    ({"parts": "a"}, None, "parts of term 'mine' must name some of a, b"),
    ({"parts": ["c"]}, None, "'c' is unknown; known: a, b"),
    ({"parts": {"a": -1}}, None, "weight of a in option parts .* zero or more"),
]


@pytest.mark.parametrize(("given", "expected", "words"), KINDS, ids=str)
def test_a_default_says_the_kind_of_an_option(given, expected, words):
    defaults = resolved("mine", Optioned(), {})
    if words is None:
        assert resolved("mine", Optioned(), given) == {**defaults, **expected}
    else:
        with pytest.raises(ValueError, match=words):
            resolved("mine", Optioned(), given)
    # Recipes know the same without torch.
    wrong = [what_is_wrong(Optioned.options[name], value) for name, value in given.items()]
    assert any(wrong) == (words is not None and "beyond" not in words)


OPTED = {"weights": {"crd": 1.0, "affinity": 2.0}, "options": {"affinity": {"student_scale": 9}}}


def test_they_are_printed_and_copied():
    loss = build("clip_kd", MIXED, **OPTED)
    assert "1 crd + 2 affinity(student_scale=9), variant" in repr(loss)
    assert torch.equal(copy.deepcopy(loss)(**MIXED.inputs()), loss(**MIXED.inputs()))


@pytest.mark.slow
def test_they_are_compiled():
    loss = build("clip_kd", MIXED, **OPTED)
    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    assert_same(run(compiled, MIXED.inputs()), run(loss, MIXED.inputs()))


@pytest.mark.parametrize("scale", [0, -1.0, float("nan"), float("inf"), "100", True, torch.tensor(3.0)], ids=str)
def test_a_scale_is_a_finite_number_above_zero(scale):
    with pytest.raises(ValueError, match="option teacher_scale of term 'affinity' must be a finite number above zero"):
        kdlosses.AffinityLoss(teacher_scale=scale)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "options must map terms to their options, as in .*affinity.*, got list"),
        ({"affinty": {}}, "loss term 'affinty' is unknown; .*did you mean 'affinity'"),
        ({"affinity": 100.0}, "options of 'affinity' must map names to values, .*got float"),
        ({"affinity": {"scale": 1.0}}, "option of term 'affinity' 'scale' is unknown; known: student_scale, teacher_s"),
        ({"crd": {"teacher_scale": 1.0}}, "term 'crd' takes no options, got 'teacher_scale'; those that do: affinity"),
        ({"affinity": {"teacher_scale": 1.0}}, "options name 'affinity', which has no weight; add it"),
    ],
)
def test_what_is_wrong_is_told(options, words):
    weights = {"crd": 1.0} if "no weight" in words else {"crd": 1.0, "affinity": 1.0}
    for make in (
        kdlosses.CLIPKDLoss,
        lambda *a, **k: kdlosses.MultiTeacherLoss(*a, student_dim=4, teacher_dims=[6], **k),
    ):
        with pytest.raises(ValueError, match=words):
            make(weights, options=options)
