"""MFDLoss: FD with the student's embedding of the masked images."""

from __future__ import annotations

import pytest
from hypothesis import given

from tests import strategies
from tests.problems import Problem
from tests.running import assert_equals_oracle, assert_gradcheck, assert_same, build, run
from tests.tolerance import assert_close

OTHER_IMAGES = Problem(seed=9).inputs()["image_features"]


@pytest.mark.parametrize("variant", ["paper", "released"])
@pytest.mark.parametrize("masked", [True, False], ids=["masked", "unmasked"])
@given(problem=strategies.problems())
def test_value_and_gradients(variant, masked, problem):
    assert_equals_oracle("mfd", problem, variant, masked=masked)


def test_gradcheck():
    assert_gradcheck("mfd", Problem(batch=3, student_dim=4, teacher_dim=3))


def test_without_masked_features_it_is_fd():
    inputs = Problem(teacher_dim=4).inputs()
    fd, mfd = build("fd", Problem(teacher_dim=4)), build("mfd", Problem(teacher_dim=4))
    assert_same(run(mfd, inputs), run(fd, inputs))


def test_masked_features_take_the_place_of_the_image_features():
    inputs = Problem().inputs()
    outcome = run(build("mfd", Problem()), inputs | {"masked_image_features": OTHER_IMAGES})
    instead = run(build("fd", Problem()), inputs | {"image_features": OTHER_IMAGES})
    assert_close(outcome.value, instead.value)
    assert_close(outcome.grads["masked_image_features"], instead.grads["image_features"])
    assert outcome.grads["image_features"] is None


def test_released_overwrites_the_masked_features():
    inputs = Problem().inputs()
    outcome = run(build("mfd", Problem(), variant="released"), inputs | {"masked_image_features": OTHER_IMAGES})
    assert_close(outcome.value, run(build("fd", Problem()), inputs).value)
    assert outcome.grads["masked_image_features"] is None


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_masked_features_of_another_shape_are_refused(variant):
    problem = Problem()
    with pytest.raises(ValueError, match="masked_image_features"):
        build("mfd", problem, variant=variant)(**problem.inputs(), masked_image_features=OTHER_IMAGES[:-1])
