"""`clipkd recipes list` and `show`: what is in the table, and where each value of a recipe comes from."""

from __future__ import annotations

import json
import re

import pytest
import yaml
from typer.testing import CliRunner

from harness.cli.app import app
from harness.config import dump_recipe, load_recipe, recipe_names
from harness.config.load import load_with_tree
from harness.config.origin import annotated, origins
from tests.grid import tiers


def clipkd(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["recipes", *arguments], env={"COLUMNS": "80"})
    assert result.exit_code == 0, result.output
    return result.output


def test_a_row_says_student_published_accuracy_and_what_is_learnt_and_a_title_what_a_folder_shares():
    lines = clipkd("list").splitlines()
    assert "paper/clipkd/vit-b-16-laion/ under ViT-B-16 laion400m crd fd icl" in [line.rstrip() for line in lines]
    assert "paper/method/ under ViT-B-16" in [line.rstrip() for line in lines]
    rows = [line.split() for line in lines]
    assert ["paper/clipkd/vit-b-16-laion/rn50", "RN50", "55.40"] in rows
    assert ["paper/method/gd", "ViT-T-16", "31.54", "gd"] in rows
    assert ["paper/baseline/mobilenetv3", "mobilenetv3_small_100", "25.11"] in rows


def test_the_list_as_json():
    entries = {entry["recipe"]: entry for entry in json.loads(clipkd("list", "--json"))}
    assert list(entries) == recipe_names()
    entry = entries["paper/clipkd/vit-l-14-laion/vit-b-16"]
    assert entry["teachers"] == [{"model": "ViT-L-14", "pretrained": "laion400m_e32"}]
    assert (entry["student"], entry["published"]["top1"]) == ("ViT-B-16", 57.5)
    assert entry["weights"] == {"contrastive": 1, "crd": 1, "fd": 2000, "icl": 1}
    assert entries["smoke"]["published"] is None


def places(name: str, *overrides: str) -> dict[str, str]:
    shown = json.loads(clipkd("show", name, "--json", *(part for text in overrides for part in ("--set", text))))
    assert shown["recipe"] == load_recipe(name, overrides).model_dump(mode="json")
    return shown["origin"]


def test_every_value_has_the_place_it_was_written_at():
    told = places("paper/clipkd/rn101/resnet-18", "optim.lr=2e-3", "data.augment={rotate: 0.1}")
    assert told["optim.lr"] == "--set optim.lr=2e-3"
    assert told["data.augment.rotate"] == "--set data.augment={rotate: 0.1}"
    assert told["data.augment.shift"] == told["train.accum_freq"] == "default"
    for key, file, text in (
        ("student.model", "paper/clipkd/rn101/resnet-18.yaml", "  model: timm_resnet18"),
        ("teacher.pretrained", "paper/parts/rn101.yaml", "  pretrained: ${weights_root}/RN101_cc3m_12m_ep32.pt"),
        ("loss.weights.fd", "paper/clipkd/base.yaml", "  weights: {contrastive: 1, crd: 1, fd: 2000, icl: 1}"),
        ("published.deviations[3]", "paper/clipkd/rn101/resnet-18.yaml", "    script: RN101_KD/RN18_kd.sh names Mobi"),
        ("data.train[1]", "paper/base.yaml", '  train: ["${data_root}/cc3m", "${data_root}/cc12m"]'),
    ):
        found = re.fullmatch(r"(.*), line (\d+)", told[key])
        assert found[1] == file
        assert line_of(file, int(found[2])).startswith(text)


def test_a_single_training_source_that_stands_for_a_list_has_its_places_too(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("inherits: smoke\ndata:\n  train:\n    path: shards\n    weight: 2\n")
    told = {key: place.rpartition(" ")[2] for key, place in places(str(mine)).items() if key.startswith("data.train")}
    assert told == {"data.train[0].path": "4", "data.train[0].weight": "5", "data.train[0].root": "default"}


def line_of(file: str, number: int) -> str:
    from harness.config import recipes_dir

    return (recipes_dir() / file).read_text().splitlines()[number - 1]


@pytest.mark.parametrize(
    "name",
    tiers(recipe_names(), recipe_names()[::6]),
)
def test_the_comments_leave_the_recipe_what_it_is(name):
    recipe, tree = load_with_tree(name)
    shown = annotated(recipe, origins(recipe, tree))
    assert yaml.safe_load(shown) == yaml.safe_load(dump_recipe(recipe))
    kept = [line for line in shown.splitlines() if not line.lstrip().startswith("#")]
    assert [re.sub(r" +# [^#]*$", "", line) for line in kept] == dump_recipe(recipe).splitlines()


def test_a_section_from_one_place_has_one_comment():
    lines = clipkd("show", "smoke").splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("teacher_cache:"))
    assert lines[start].split() == ["teacher_cache:", "#", "default"]
    assert lines[start + 1] == "  use: false"
