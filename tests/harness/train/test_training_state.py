"""What a checkpoint has to hold: anything else gives way to the one before, and is said."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.checkpoint import list_checkpoints, save_checkpoint
from harness.errors import UserError
from harness.train.resume import load_newest, load_same_checkpoint
from harness.train.training_state import read_state
from tests.harness.train.states import good_state

SPOILT: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "a rank too few": (lambda s: s["ranks"].clear(), "it has states of 0 ranks, and world_size is 1"),
    "a schedule elsewhere": (lambda s: s["schedule"].update(last_epoch=7), "its schedule is at step 7, and step is 2"),
    "no parameter groups": (lambda s: s["optimizer"].update(param_groups=[]), "optimizer.param_groups must be"),
    "a rate that is not finite": (
        lambda s: s["optimizer"]["param_groups"][0].update(lr=float("nan")),
        r"optimizer.param_groups\[0\].lr must be a finite number, got nan",
    ),
    "no weights": (lambda s: s["state_dict"].clear(), "state_dict must be"),
    "a weight that is no tensor": (lambda s: s["state_dict"].update(w=[1.0]), "state_dict.w must be"),
    "an unknown kind": (lambda s: s.update(parallel="zero"), "parallel must be 'ddp' or 'fsdp2'"),
    "no place": (lambda s: s["ranks"][0]["loader"].update(position="3"), "position must be a number of batches"),
    "no random state": (lambda s: s["ranks"][0].pop("torch"), r"the key ranks\[0\].torch is missing"),
    "half a random state": (lambda s: s["ranks"][0].update(numpy=["MT19937"]), r"ranks\[0\].numpy must"),
    "not finite": (lambda s: s["interval"].update(seconds=float("nan")), "interval.seconds must be a finite number"),
    "skipped samples": (
        lambda s: s["ranks"][0]["loader"]["skipped"].update(first=["a"]),
        r"ranks\[0\].loader.skipped.first must",
    ),
}


def refused(path: Path, state: Any) -> str:
    """What is said of a state."""
    torch.save(state, path)
    with pytest.raises(ValueError) as caught:
        read_state(path)
    return str(caught.value)


@pytest.mark.parametrize("key", good_state(2))
def test_a_missing_key_or_another_type_is_named(tmp_path: Path, key: str) -> None:
    state = good_state(2)
    if key != "optimizer":  # of which more is said
        assert refused(tmp_path / "c.pt", {name: value for name, value in state.items() if name != key}) == (
            f"the key {key} is missing"
        )
    for other in ("text", [None], True, -1) if key not in ("name", "recipe") else (3, None):
        assert re.search(rf"\b{key}\b.*must be", refused(tmp_path / "c.pt", {**state, key: other})), other


@pytest.mark.parametrize("name", SPOILT)
def test_what_does_not_belong_together_is_named(tmp_path: Path, name: str) -> None:
    state, (spoil, says) = good_state(2), SPOILT[name]
    spoil(state)
    assert re.search(says, refused(tmp_path / "c.pt", state))


def test_the_checkpoint_before_is_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "checkpoints"
    save_checkpoint(folder, good_state(1), 1, keep=3)
    save_checkpoint(folder, {**good_state(2), "ranks": []}, 2, keep=3)
    assert load_newest(list_checkpoints(folder))["step"] == 1
    says = "it has states of 0 ranks, and world_size is 1"
    assert f"step-0000002.pt cannot be read ({says}); trying the one before" in caplog.text
    with pytest.raises(UserError, match=rf"which this rank cannot read \({says}"):
        load_same_checkpoint(tmp_path, 2)
    (folder / "step-0000001.pt").unlink()
    with pytest.raises(UserError, match=rf"none of the checkpoints in .* \(the newest: {says}"):
        load_newest(list_checkpoints(folder))


def test_any_other_content_is_refused(tmp_path: Path) -> None:
    for content in (None, 3, [good_state(1)], torch.zeros(3), {}):
        torch.save(content, tmp_path / "c.pt")
        with pytest.raises(ValueError, match=r"must be a mapping|the key step is missing"):
            read_state(tmp_path / "c.pt")
