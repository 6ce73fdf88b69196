"""The learnable temperatures: where they start, and the paper's bound of 100."""

from __future__ import annotations

import math

import pytest
import torch

import kdlosses
from tests.problems import Problem
from tests.running import run
from tests.tolerance import assert_close

TEMPERATURES = [("icl", "cross_logit_scale"), ("cross_kd", "cross_logit_scale"), ("afd", "fusion_logit_scale")]
TEMPERATURES += [("vrd", "image_logit_scale"), ("vrd", "text_logit_scale"), ("xrd", "cross_logit_scale")]


@pytest.mark.parametrize("variant", ["paper", "released"])
@pytest.mark.parametrize(("name", "parameter"), TEMPERATURES)
def test_starts_at_the_logarithm_of_one_over_007(name, parameter, variant):
    loss = kdlosses.build(name, variant=variant, **Problem().dims)
    assert getattr(loss, parameter).item() == pytest.approx(math.log(1 / 0.07), rel=1e-6)


def outcome_at(name: str, parameter: str, value: float, variant: str):
    torch.manual_seed(1)
    loss = kdlosses.build(name, variant=variant, **Problem().dims).double()
    torch.nn.init.constant_(getattr(loss, parameter), value)
    return run(loss, Problem().inputs())


@pytest.mark.parametrize(("name", "parameter"), TEMPERATURES)
def test_paper_scale_never_exceeds_100_and_its_gradient_is_that_of_the_value(name, parameter):
    above, bound = (outcome_at(name, parameter, value, "paper") for value in (9.0, math.log(100)))
    assert_close(above.value, bound.value)
    assert above.grads[f"param.{parameter}"] == 0


@pytest.mark.parametrize("variant", ["paper", "released"])
@pytest.mark.parametrize(("name", "parameter"), TEMPERATURES)
def test_clamp_scales_brings_one_that_overshot_back_to_learning(name, parameter, variant):
    loss = kdlosses.build(name, variant=variant, **Problem().dims)
    torch.nn.init.constant_(getattr(loss, parameter), 9.0)
    loss.clamp_scales()
    assert getattr(loss, parameter).item() == pytest.approx(math.log(100) if variant == "paper" else 9.0)
    assert run(loss, Problem().inputs(torch.float32)).grads[f"param.{parameter}"] != 0


@pytest.mark.parametrize(("name", "parameter"), TEMPERATURES)
def test_paper_scale_just_below_the_bound_still_learns(name, parameter):
    assert outcome_at(name, parameter, math.log(99.0), "paper").grads[f"param.{parameter}"].abs() > 1e-6


@pytest.mark.parametrize(("name", "parameter"), TEMPERATURES)
def test_released_scale_has_no_bound(name, parameter):
    above, further = (outcome_at(name, parameter, value, "released") for value in (9.0, 120.0))
    assert abs(above.value - further.value) > 1e-3
    assert further.grads[f"param.{parameter}"] != 0
