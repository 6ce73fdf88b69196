"""Every loss on every backend against its independent oracle: the value and every gradient, both variants."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

import kdlosses
from tests import strategies
from tests.backends.cases import EVERY, MIXED, NAMES, SAME, VARIANTS, Case, assert_equals_oracle
from tests.backends.subjects import USABLE, on_triton, subject
from tests.grid import grid
from tests.problems import Problem

PROBLEMS = {
    "same-width": SAME,
    "mixed-widths": MIXED,
    "one-pair": MIXED.with_(batch=1),
    "duplicates": Problem(batch=4, scale=100.0, teacher_scale=100.0, duplicates=True),
}
SUMS = {
    f"{variant}-{width}": Case("clip_kd", problem, variant, masked=True, weights=EVERY)
    for variant in VARIANTS
    for width, problem in (("same-width", SAME), ("mixed-widths", MIXED))
}
WITHOUT_FUSION = tuple((term, weight) for term, weight in EVERY if term != "afd")
SUMS["released-mixed-widths"] = Case("clip_kd", MIXED, "released", masked=True, weights=WITHOUT_FUSION)


def possible(name: str, variant: str, problem: str, **_: str) -> bool:
    return Case(name, PROBLEMS[problem], variant).possible


@grid(["name label", "name variant"], possible, name=NAMES, variant=VARIANTS, problem=PROBLEMS, label=USABLE)
def test_value_and_gradients_equal_the_oracles(name, variant, problem, label):
    assert_equals_oracle(Case(name, PROBLEMS[problem], variant), subject(label))


@grid(case=SUMS, label=USABLE)
def test_all_terms_at_once_equal_the_oracles(case, label):
    """Equal widths share one relation between task, CRD and GD; mixed ones share projections alone."""
    assert_equals_oracle(SUMS[case], subject(label))


@grid(variant=VARIANTS, label=USABLE)
def test_masked_features_reach_mfd(variant, label):
    assert_equals_oracle(Case("mfd", MIXED, variant, masked=True), subject(label))


@grid(name=kdlosses.available_terms(without_options=True), label=USABLE, slow=on_triton)
@settings(max_examples=8)
@given(problem=strategies.problems(max_batch=6), variant=st.sampled_from(VARIANTS))
def test_any_problem(name, label, problem, variant):
    case = Case(name, problem, variant)
    assert_equals_oracle(case if case.possible else Case(name, problem), subject(label))
