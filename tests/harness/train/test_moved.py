"""A run goes on where its data and weights have moved, if they are the same."""

import json
import logging
import os
import shutil

import pytest
import torch

from harness.checkpoint import save_checkpoint
from harness.config import dump_recipe, load_recipe
from harness.errors import UserError
from harness.metrics import read_metrics
from harness.teachers.datafiles import data_files
from harness.train import resume, train
from harness.train.moved import inputs_of, is_same_unreplaced
from harness.train.resume import find_checkpoint
from harness.weights.archives import load_archive
from tests.harness import tiny
from tests.harness.data.pairs import write_csv, write_shards, write_tar

ROOTS = [("data", "/scratch/job"), ("weights", "w2")]


@pytest.mark.parametrize(
    ("was", "now", "same"),
    [
        ("data/shards", "/scratch/job/shards", True),
        ("data/data/a.csv", "/scratch/job/data/a.csv", True),
        ("data/data/a.csv", "data//scratch/job/a.csv", True),
        ("data/a.csv,data/b.csv", "/scratch/job/a.csv,/scratch/job/b.csv", True),
        ("pipe:cat data/x weights/y", "pipe:cat /scratch/job/x w2/y", True),
        (
            ["data/a", {"path": "data/b", "weight": 2.0}],
            ["/scratch/job/a", {"path": "/scratch/job/b", "weight": 2.0}],
            True,
        ),
        ("data/shards", "/scratch/job/other", False),
        ("data/shards", "/scratch/shards", False),
        ("weights/a", "/scratch/job/a", False),
        ("data", "", False),
        (["data/a"], ["/scratch/job/a", "/scratch/job/b"], False),
        ({"path": "data/a"}, {"root": "/scratch/job/a"}, False),
        (1.0, 2.0, False),
        (None, "/scratch/job", False),
    ],
)
def test_the_same_text_with_other_values_in_it(was, now, same):
    assert is_same_unreplaced(was, now, ROOTS) is same


def test_a_long_list_takes_no_time():
    many = [",".join(f"{root}/{number:05d}.csv" for number in range(2000)) for root in ("aa", "aaa")]
    assert is_same_unreplaced(*many, [("aa", "aaa")])


def written(folder, train="${data_root}/shards", **others):
    """A recipe that names its files by variables."""
    content = {**tiny.recipe(**tiny.DISTILL).model_dump(mode="json"), "data": {"train": train, "crop": "resize"}}
    content["student"]["config"], content["teacher"]["config"] = tiny.STUDENT, tiny.TEACHER
    content["teacher"]["pretrained"] = "${weights_root}/teacher.pt"
    content["train"] |= {"steps": 4, "save_every": 2}
    del content["paths"]
    (folder / "recipe.yaml").write_text(json.dumps({**content, **others}))
    return folder / "recipe.yaml"


def loaded(folder, data, weights="w1", *changes):
    return load_recipe(folder / "recipe.yaml", [f"paths.weights_root={folder / weights}", *changes], folder / data)


@pytest.fixture
def started(tmp_path, monkeypatch):
    """Data, weights and what counts here of a checkpoint of step 2 in the folder `run`."""
    monkeypatch.setattr(resume, "read_state", load_archive)
    written(tmp_path)
    write_shards(tmp_path / "d1/shards", 32, 8)
    (tmp_path / "w1").mkdir()
    torch.save({"a": torch.zeros(100)}, tmp_path / "w1/teacher.pt")
    recipe = loaded(tmp_path, "d1")
    state = {"step": 2, "recipe": dump_recipe(recipe), "inputs": inputs_of(recipe), "optimizer": {"state": {0: 1}}}
    save_checkpoint(tmp_path / "run/checkpoints", state, 2, 2)
    return tmp_path


def resumed(folder, *arguments):
    return find_checkpoint(loaded(folder, *arguments), folder / "run", resume=True, overwrite=False)


def test_what_has_moved_and_is_the_same_is_taken(started, caplog):
    caplog.set_level(logging.INFO, "harness")
    (started / "d1").rename(started / "d2")
    (started / "w1").rename(started / "w2")
    assert resumed(started, "d2", "w2")["step"] == 2
    assert f"resuming with data.train moved from ['{started}/d1/shards'] to ['{started}/d2/shards']" in caplog.text
    assert f"resuming with teacher.pretrained moved from '{started}/w1/teacher.pt'" in caplog.text


@pytest.mark.parametrize("kind", ["pipe", "dangling"])
def test_a_shard_that_cannot_be_opened_is_left_to_its_reader(tmp_path, kind):
    written(tmp_path)
    write_shards(tmp_path / "d1/shards", 16, 8)
    recipe = loaded(tmp_path, "d1", "none")
    whole = inputs_of(recipe)
    broken = tmp_path / "d1/shards/00002.tar"
    os.mkfifo(broken) if kind == "pipe" else broken.symlink_to(tmp_path / "nowhere")
    assert inputs_of(recipe).keys() == whole.keys() and inputs_of(recipe) != whole
    with pytest.raises(UserError, match=r"00002\.tar cannot be read: .*; remove it, or list only good shards"):
        data_files(recipe, 8)


def test_other_content_elsewhere_is_refused(started):
    shutil.copytree(started / "d1", started / "d2")
    write_tar(started / "d2/shards/00001.tar", [("k", {"png": b"other", "txt": b"text"})])
    with pytest.raises(UserError, match=r"where its files have moved to: the shards of data\.train are others there"):
        resumed(started, "d2")
    (started / "w2").mkdir()
    torch.save({"a": torch.ones(100)}, started / "w2/teacher.pt")
    with pytest.raises(UserError, match="the teacher's weights are others there; give the folder that holds those"):
        resumed(started, "d1", "w2")


def test_another_part_of_the_path_is_another_recipe(started):
    shutil.copytree(started / "d1/shards", started / "d2/others")
    written(started, train="${data_root}/others")
    with pytest.raises(UserError, match=r"started with another recipe: data\.train was"):
        resumed(started, "d2")


def test_what_lies_still_may_be_repaired(started):
    write_tar(started / "d1/shards/00001.tar", [("k", {"png": b"repaired", "txt": b"text"})])
    assert resumed(started, "d1")["step"] == 2


def test_a_checkpoint_of_before_is_taken_with_a_warning(started, caplog):
    state = resumed(started, "d1")
    del state["inputs"]
    save_checkpoint(started / "run/checkpoints", state, 3, 2)
    (started / "d1").rename(started / "d2")
    assert resumed(started, "d2")["step"] == 2
    assert "does not say what its data and weights were: those that are here are taken for them" in caplog.text


def test_a_cache_may_lie_elsewhere(started):
    assert resumed(started, "d1", "w1", f"teacher_cache.path={started / 'cache'}")["step"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["shards", "csv"])
def test_a_moved_run_goes_on_as_if_it_had_not(tmp_path, kind):
    written(tmp_path, train="${data_root}/" + ("shards" if kind == "shards" else "pairs.csv"), teacher=None)
    recipe_text = json.loads((tmp_path / "recipe.yaml").read_text()) | {"loss": {"weights": {"contrastive": 1}}}
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe_text))
    write_shards(tmp_path / "d1/shards", 40, 8) if kind == "shards" else write_csv(tmp_path / "d1", 40)

    def load(data):
        return load_recipe(tmp_path / "recipe.yaml", [], tmp_path / data)

    train(load("d1"), tmp_path / "run")
    whole = [line["loss"] for line in read_metrics(tmp_path / "run/metrics.jsonl")]
    for gone in ("summary.json", "checkpoints/step-0000004.pt"):
        (tmp_path / "run" / gone).unlink()
    (tmp_path / "d1").rename(tmp_path / "d2")
    train(load("d2"), tmp_path / "run", resume=True)
    assert [line["loss"] for line in read_metrics(tmp_path / "run/metrics.jsonl")] == whole
