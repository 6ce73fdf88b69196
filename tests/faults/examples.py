"""Good examples of what commands read, each in a folder of its own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from harness.config import ModelConfig, dump_recipe
from harness.errors import Terminated
from harness.export import export_model
from harness.models import create_model
from harness.teachers.build import build_cache
from harness.train import train
from harness.train import trainer as trainer_module
from tests.harness import tiny
from tests.harness.data.pairs import write_csv, write_shards
from tests.harness.evaluate.eval_sets import write_zeroshot

PAIRS = 24
RECIPE = Path(__file__).parents[2] / "recipes" / "smoke.yaml"


def recipe(folder: Path) -> None:
    """The smoke recipe, with every key of its own."""
    shutil.copy(RECIPE, folder / "recipe.yaml")


def table(folder: Path) -> None:
    """Pairs listed in a CSV."""
    write_csv(folder, PAIRS)


def shards(folder: Path) -> None:
    """The same in shards."""
    write_shards(folder, PAIRS, PAIRS // 3)


def model(folder: Path) -> None:
    """An export of a small model."""
    export_model(_small(), folder / "model")


def state_dict(folder: Path) -> None:
    """Its weights alone, as torch saves them, and its config."""
    small = _small()
    torch.save(small.model.state_dict(), folder / "weights.pt")
    (folder / "config.json").write_text(json.dumps(tiny.STUDENT))


def interrupted_run(folder: Path) -> None:
    """A run that was stopped after step 3 of 4, and its recipe."""
    made = tiny.recipe(train={"save_every": 1, "keep_last": 2})
    (folder / "recipe.yaml").write_text(dump_recipe(made))
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Terminated):
        patch.setattr(trainer_module, "watch_for_sigterm", _StopAfter(3))
        train(made, folder / "run", command="test")


def finished_run(folder: Path) -> None:
    """A run with an evaluation."""
    sets = [{"name": "shapes", "kind": "zeroshot", "path": "synthetic:16"}]
    train(tiny.recipe(eval={"sets": sets}), folder / "run", command="test")


def evaluation_set(folder: Path) -> None:
    """A model, and a set in clip_benchmark's layout."""
    model(folder)
    write_zeroshot(folder / "shapes", [0, 1, 2, 0], ["circle", "square", "star"])


def teacher_cache(folder: Path) -> None:
    """Pairs, a recipe and the cached embeddings of its teacher."""
    pairs = write_csv(folder, PAIRS)
    made = tiny.recipe(
        **tiny.DISTILL,
        data={"train": str(pairs)},
        train={"steps": 1, "batch_size": 8},
        teacher_cache={"path": str(folder / "cache")},
    )
    (folder / "recipe.yaml").write_text(dump_recipe(made))
    build_cache(made, batch_size=PAIRS)


def copy(example: Path, parent: Path) -> Path:
    """Copy an example into a folder; a recipe in it that names its folder names the copy."""
    folder = parent / example.name  # which is part of the names of a cache's files
    shutil.copytree(example, folder, symlinks=True)
    if (recipe := folder / "recipe.yaml").is_file():
        recipe.write_text(recipe.read_text().replace(str(example), str(folder)))
    return folder


class _StopAfter:
    """What stands for `watch_for_sigterm`, and sees SIGTERM come before a step is taken."""

    def __init__(self, step: int) -> None:
        self._taken = iter(range(1, 1000))
        self._step = step

    def __call__(self) -> _StopAfter:
        return self

    def __enter__(self):
        return lambda: next(self._taken) >= self._step

    def __exit__(self, *_: object) -> None:
        return None


def _small():
    torch.manual_seed(0)
    return create_model(ModelConfig(model="test-faults", config=tiny.STUDENT))
