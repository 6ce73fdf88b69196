"""AFDLoss: the CLIP loss of fused student and teacher embeddings."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given

from tests import strategies
from tests.problems import Problem
from tests.running import assert_equals_oracle, assert_gradcheck, build, run
from tests.tolerance import assert_close


@given(problem=strategies.problems())
def test_value_and_gradients(problem):
    assert_equals_oracle("afd", problem)


@given(problem=strategies.problems(same_width=True))
def test_released_value_and_gradients(problem):
    assert_equals_oracle("afd", problem, "released")


@pytest.mark.parametrize(("variant", "teacher_dim"), [("paper", 3), ("released", 4)])
def test_gradcheck(variant, teacher_dim):
    assert_gradcheck("afd", Problem(batch=3, student_dim=4, teacher_dim=teacher_dim), variant)


@given(problem=strategies.problems())
def test_fusion_maps_both_widths_to_the_students(problem):
    assume(problem.student_dim != problem.teacher_dim)
    shapes = {name: tuple(p.shape) for name, p in build("afd", problem).named_parameters()}
    fused = (problem.student_dim, problem.student_dim + problem.teacher_dim)
    assert shapes == {
        "visual_fusion_proj.weight": fused,
        "visual_fusion_proj.bias": fused[:1],
        "text_fusion_proj.weight": fused,
        "text_fusion_proj.bias": fused[:1],
        "fusion_logit_scale": (),
    }


def test_the_student_comes_first_in_the_fusion():
    """With the fusion reading its first Ds columns alone the teacher has no say."""
    problem = Problem(student_dim=4, teacher_dim=6)
    loss, inputs = build("afd", problem), problem.inputs()
    with torch.no_grad():
        loss.visual_fusion_proj.weight[:, 4:] = 0
        loss.text_fusion_proj.weight[:, 4:] = 0
    other = problem.with_(seed=3).inputs()
    mixed = inputs | {key: other[key] for key in ("dist_image_features", "dist_text_features")}
    assert_close(loss(**inputs), loss(**mixed))
    assert run(loss, inputs).grads["image_features"].abs().max() > 1e-4


def test_does_not_depend_on_either_models_scale():
    loss, inputs = build("afd", Problem()), Problem().inputs()
    other = inputs | {"logit_scale": torch.tensor(3.0), "dist_logit_scale": torch.tensor(2.0)}
    assert_close(loss(**inputs), loss(**other))
