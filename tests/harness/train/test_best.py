"""A run's best step is loaded as it was kept, or not at all."""

from __future__ import annotations

import pytest
import torch

from harness.checkpoint import save_checkpoint, write_checkpoint
from harness.config import dump_recipe
from harness.errors import UserError
from harness.models import create_model
from harness.train.best import load_best
from harness.train.resume import find_checkpoint
from tests.harness import tiny
from tests.harness.train.states import good_state
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


def test_a_damaged_record_of_the_best_step_ends_a_resume_at_once(tmp_path, weights):
    recipe = tiny.recipe(
        eval={
            "sets": [{"name": "zeroshot", "kind": "zeroshot", "path": "synthetic:8"}],
            "every": 2,
            "best": "zeroshot/top1",
        }
    )
    folder = run(tmp_path, weights) / "checkpoints"
    save_checkpoint(folder, {**good_state(2), "recipe": dump_recipe(recipe)}, 2, keep=1)
    (folder / "best.json").write_text('{"step": 1, "set": "zeroshot", "metric": "top1"}')
    with pytest.raises(UserError, match=r"best\.json cannot be read \(the key value is missing\); .*or delete it"):
        find_checkpoint(recipe, tmp_path, resume=True, overwrite=False)
    (folder / "best.json").unlink()
    assert find_checkpoint(recipe, tmp_path, resume=True, overwrite=False)["step"] == 2


def test_weights_that_are_not_finite_are_refused_by_name(tmp_path, weights):
    weights["visual.proj"][0, 0] = float("nan")
    with pytest.raises(UserError, match=r"1 entry is not finite: visual\.proj"):
        load_best(run(tmp_path, weights))
