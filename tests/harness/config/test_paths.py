"""Keys that name files and folders: `~` is expanded, and bytes that are not UTF-8 are kept."""

import os

import pytest

from harness.config import Recipe, RecipeError, dump_recipe, load_recipe, parse_recipe
from harness.config.keys import all_keys
from harness.config.section import AnyPath, PathText
from harness.evaluate.suites import load_suite
from tests.harness import tiny

PATHS = {
    "paths.data_root", "paths.weights_root", "data.train[].path", "data.train[].root", "data.root", "student.model",
    "student.pretrained", "teacher.model", "teacher.pretrained", "teachers[].model", "teachers[].pretrained",
    "teacher_cache.path", "eval.sets[].path", "eval.suite", "eval.root",
}  # fmt: skip
TEXT = """\
name: test
paths: {data_root: ~/d, weights_root: ~/w}
data: {train: ["${data_root}/a.csv,~/b.csv", {path: ~/c.csv, root: ~/images}], root: ~/r}
student: {model: ViT-B-32, pretrained: ~/s.pt}
teachers: [{model: "local-dir:~/t"}, {model: "run:${weights_root}/run"}]
teacher_cache: {path: ~/cache}
loss: {weights: {crd: 1}}
train: {batch_size: 8, steps: 4}
eval: {sets: [{name: a, kind: retrieval, path: ~/a}], suite: ~/suite.yaml, root: "${data_root}/eval"}
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_these_keys_are_paths():
    wrappers = {AnyPath.__metadata__[-1], PathText.__metadata__[-1]}
    found = {
        key.name for key in all_keys() if wrappers & {*key.field.metadata} or _wrapped(key.field.annotation, wrappers)
    }
    assert found == PATHS


def _wrapped(annotation: object, wrappers: set) -> bool:
    inner = getattr(annotation, "__args__", ())
    return any(wrappers & {*getattr(one, "__metadata__", ())} for one in inner)


def test_a_recipe_without_a_tilde_left(home):
    (home / "recipe.yaml").write_text(TEXT)
    (home / "child.yaml").write_text("inherits: ~/recipe.yaml\n")
    recipe = load_recipe("~/child.yaml", ["data.workers=1"])
    dumped = dump_recipe(recipe)
    assert "~" not in dumped and dumped.count(str(home)) == 14
    assert recipe.data.train[0] == f"{home}/d/a.csv,{home}/b.csv"
    assert recipe.teachers[1].model == f"run:{home}/w/run"


def test_options_are_expanded(home):
    (home / "recipe.yaml").write_text(TEXT)
    recipe = load_recipe("~/recipe.yaml", ["teacher_cache.path=~/other"], "~/elsewhere")
    assert recipe.teacher_cache.path == f"{home}/other"
    assert recipe.data.train[0] == f"{home}/elsewhere/a.csv,{home}/b.csv"


def test_folders_in_a_model_config_and_in_a_suite_are_expanded(home):
    config = {**tiny.STUDENT, "text_cfg": {**tiny.STUDENT["text_cfg"], "hf_tokenizer_name": "~/tokenizer"}}
    recipe = tiny.recipe(student={"model": "x", "config": config})
    assert recipe.student.config["text_cfg"]["hf_tokenizer_name"] == f"{home}/tokenizer"
    (home / "suite.yaml").write_text("sets: [{name: a, kind: retrieval, path: [~/a, b]}]")
    assert load_suite("~/suite.yaml").sets[0].path == (f"{home}/a", "b")


def test_a_home_of_nobody_is_a_sentence(home):
    (home / "recipe.yaml").write_text(TEXT.replace("~/cache", "~nobody-9/cache"))
    with pytest.raises(RecipeError, match=r"line 6: teacher_cache.path is '~nobody-9/cache' cannot be expanded: there"):
        load_recipe(home / "recipe.yaml")


def test_bytes_that_are_not_utf8_come_back(home):
    folder = os.fsdecode(b"caf\xe9")
    recipe = tiny.recipe(paths={"data_root": folder}, data={"train": [{"path": f"{folder}/a.csv", "root": folder}]})
    assert parse_recipe(dump_recipe(recipe), "x") == recipe
    assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe


def test_a_nul_is_refused():
    with pytest.raises(ValueError, match="NUL"):
        tiny.recipe(data={"root": "a\0b"})
