"""A run's best step is loaded as it was kept, or not at all."""

from __future__ import annotations

import pytest
import torch

from harness.checkpoint import write_checkpoint
from harness.config import dump_recipe
from harness.errors import UserError
from harness.models import create_model
from harness.train.best import load_best
from tests.harness import tiny
from tests.harness.weights import damage


@pytest.fixture
def weights():
    return create_model(tiny.recipe().student).model.state_dict()


def run(tmp_path, weights):
    """A run folder with what `load_best` reads."""
    (tmp_path / "recipe.yaml").write_text(dump_recipe(tiny.recipe()))
    write_checkpoint(tmp_path / "checkpoints" / "best.pt", {"step": 3, "state_dict": weights})
    return tmp_path


def test_the_weights_are_those_that_were_kept(tmp_path, weights):
    found = load_best(run(tmp_path, weights)).model.state_dict()
    assert list(found) == list(weights)
    assert all(torch.equal(found[name], value) for name, value in weights.items())


def test_a_flipped_bit_is_refused_and_the_last_step_offered(tmp_path, weights):
    record = damage.flip_largest_record(run(tmp_path, weights) / "checkpoints" / "best.pt")
    with pytest.raises(UserError, match=rf"best\.pt is damaged: its record {record} .*last step are in .*export"):
        load_best(tmp_path)


def test_weights_that_are_not_finite_are_refused_by_name(tmp_path, weights):
    weights["visual.proj"][0, 0] = float("nan")
    with pytest.raises(UserError, match=r"1 entry is not finite: visual\.proj"):
        load_best(run(tmp_path, weights))
