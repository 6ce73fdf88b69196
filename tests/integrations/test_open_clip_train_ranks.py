"""open_clip's own trainer with our loss in two processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch

from kdlosses.integrations.attach import without_loss
from tests.integrations import open_clip_ranks, open_clip_runs
from tests.integrations.open_clip_runs import NARROW, WIDE, checkpoint, config

pytestmark = [pytest.mark.distributed, pytest.mark.slow]


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> tuple[Path, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("ranks")
    open_clip_runs.make(folder, {NARROW: config(12), WIDE: config(20)})
    torch.save(open_clip.create_model(NARROW).state_dict(), folder / "plain.pt")
    yield folder, open_clip_ranks.start(folder)
    open_clip.factory._MODEL_CONFIG_PATHS.remove(folder / "configs")
    for name in (NARROW, WIDE):
        del open_clip.factory._MODEL_CONFIGS[name]


def end(folder: Path, name: str, epoch: int = 1) -> dict[str, torch.Tensor]:
    return checkpoint(folder, name, epoch)["state_dict"]


def felt(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Without the keys' biases, which no softmax feels: their gradient is rounding, and Adam makes steps of that."""
    found = dict(state)
    for name in state:
        if name.endswith("attn.in_proj_bias"):
            query, _, value = state[name].chunk(3)
            found[name] = torch.cat([query, value])
    return found


def test_equals_open_clips_own_distillation_with_its_exact_gradients(world):
    folder, ranks = world
    for rank in ranks:
        assert len(rank["totals"]["same"]) == 2
    # Its loss is that of this process's rows, ours that of all.
    stock = torch.tensor([rank["totals"]["stock"] for rank in ranks]).mean(0)
    for rank in ranks:
        torch.testing.assert_close(torch.tensor(rank["totals"]["same"]), stock, rtol=1e-6, atol=0)
    mine, theirs = end(folder, "same"), end(folder, "stock")
    assert list(mine) == list(theirs)
    torch.testing.assert_close(felt(mine), felt(theirs), rtol=1e-5, atol=1e-6)


def test_the_losses_parameters_learn_and_stay_equal(world):
    folder, ranks = world
    first, last = (ranks[0]["loss"][name] for name in ("from plain", "whole"))  # the former ran at a rate of zero
    assert {name: value.shape for name, value in first.items()} == {name: value.shape for name, value in last.items()}
    assert all(not torch.equal(first[name], last[name]) for name in last)
    assert {f"module.kd_loss.{name}" for name in last} < set(end(folder, "whole", 2))
    for name, state in ranks[0]["loss"].items():
        assert all(torch.equal(value, ranks[1]["loss"][name][key]) for key, value in state.items()), name


def test_no_warning_of_untrained_parameters(world):
    assert not [name for rank in world[1] for name in rank["warnings"] if name == "UntrainedParametersWarning"]


def test_an_interrupted_run_ends_where_the_other_did(world):
    folder, _ = world
    whole, stopped = (checkpoint(folder, name, 2) for name in ("whole", "stopped"))
    assert whole["state_dict"].keys() == stopped["state_dict"].keys()
    assert all(torch.equal(value, stopped["state_dict"][name]) for name, value in whole["state_dict"].items())
    assert str(whole["optimizer"]) == str(stopped["optimizer"])


def test_accumulated_steps_are_those_of_the_whole_batch(world):
    folder, ranks = world
    assert [len(ranks[0]["totals"][name]) for name in ("big", "accumulated")] == [1, 2]
    torch.testing.assert_close(felt(end(folder, "accumulated")), felt(end(folder, "big")), rtol=1e-5, atol=1e-6)


def test_shards(world):
    values = world[1][0]["totals"]["shards"]
    assert len(values) == 2
    assert torch.isfinite(torch.tensor(values)).all()


def test_a_loss_that_does_not_read_the_students_scale(world):
    """DDP waits for every parameter's gradient: the second step would fail."""
    assert [len(rank["totals"]["no scale"]) for rank in world[1]] == [2, 2]


def test_a_bare_model_is_a_start(world):
    folder, _ = world
    state = without_loss(end(folder, "from plain"))
    plain = torch.load(folder / "plain.pt", weights_only=True)
    assert list(state) == [f"module.{name}" for name in plain]
    assert all(torch.equal(value, state[f"module.{name}"]) for name, value in plain.items())


def test_the_student_is_exported(world):
    folder, _ = world
    model = open_clip.create_model(NARROW, pretrained=str(folder / "logs" / "whole" / "student.pt"))  # strict
    state = end(folder, "whole", 2)
    assert all(torch.equal(value, state[f"module.{name}"]) for name, value in model.state_dict().items())
