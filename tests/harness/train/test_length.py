"""How many steps a run takes, and how many pairs of a step are each rank's."""

from __future__ import annotations

import pytest

from harness.errors import UserError
from harness.train.length import local_batch_size, total_steps
from tests.harness import tiny


def recipe(**train):
    return tiny.recipe(train={"steps": None, "epochs": 5, **train})


@pytest.mark.parametrize(("world_size", "pairs"), [(1, 16), (2, 8), (4, 4)])
def test_the_ranks_share_the_batch_of_a_step(world_size, pairs):
    assert local_batch_size(recipe(accum_freq=4), world_size) == pairs


def test_ranks_that_cannot_share_equally_are_refused():
    with pytest.raises(UserError, match="make it a multiple of 6"):
        local_batch_size(recipe(accum_freq=2), 3)


@pytest.mark.parametrize(("samples", "steps"), [(48, 15), (50, 15), (52, 16), (1, 1)])
def test_epochs_become_whole_steps(samples, steps):
    assert total_steps(recipe(), samples) == steps
