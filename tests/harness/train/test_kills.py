"""A run killed at random moments and resumed ends bit for bit as if it had never been interrupted."""

from __future__ import annotations

import json

import pytest
import torch

from harness.metrics import read_metrics
from tests.harness import tiny
from tests.harness.data.pairs import write_csv, write_shards
from tests.harness.train.forks import carry_out

TIMES = ("seconds", "images_per_second")
KILLS = 4  # of each of 12 runs


def recipe(train, workers: int) -> dict:
    """Everything that draws random numbers: crops, augmentation, masks; checkpoints between the reports."""
    made = tiny.recipe(
        data={
            "train": str(train),
            "cache": "none",
            "crop": "random_resized",
            "crop_scale": [0.5, 1.0],
            "augment": {"scale": [0.9, 1.1], "rotate": 0.1, "shift": 0.1},
            "workers": workers,
        },
        teacher=tiny.DISTILL["teacher"],
        loss={"weights": {"contrastive": 1, "crd": 1, "fd": 100, "icl": 1, "mfd": 100}},
        train={"batch_size": 12, "steps": 24, "log_every": 4, "save_every": 3, "keep_last": 2},
        schedule={"warmup_steps": 4},
    )
    return made.model_dump(mode="json")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("source", ["csv", "shards"])
def test_a_killed_and_resumed_run_is_the_uninterrupted_one(tmp_path, source, world, workers):
    train = write_csv(tmp_path / "csv", 60) if source == "csv" else write_shards(tmp_path / "shards", 60, 15)
    plan = {
        "recipe": recipe(train, workers),
        "world": world,
        "kills": KILLS,
        "seed": f"{source} {world} {workers}",
        "step_seconds": 0.05,
    }
    carry_out(tmp_path, plan)
    told = json.loads((tmp_path / "told.json").read_text())
    assert sum(reached for _, reached in told) >= KILLS // 2, "most kills must hit a run under way"
    whole, broken = (
        torch.load(tmp_path / name / "checkpoints" / "latest.pt", weights_only=True) for name in ("whole", "broken")
    )
    for part in ("state_dict", "loss", "optimizer", "ranks"):
        assert_equal(whole[part], broken[part], part)
    streams = [
        [{key: value for key, value in line.items() if key not in TIMES} for line in read_metrics(path)]
        for path in (tmp_path / "whole/metrics.jsonl", tmp_path / "broken/metrics.jsonl")
    ]
    assert streams[0] == streams[1]
    assert [line["step"] for line in streams[0]] == list(range(4, 25, 4))


def assert_equal(one: object, other: object, where: str) -> None:
    """Compare to the last bit."""
    assert type(one) is type(other), where
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_equal(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for index, (first, second) in enumerate(zip(one, other, strict=True)):
            assert_equal(first, second, f"{where}[{index}]")
    else:
        assert one == other, where
