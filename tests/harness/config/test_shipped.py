"""The shipped recipes: all load, and say what the README's table needs."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer

import harness
from harness.config import dump_recipe, load_recipe, recipe_names, recipes_dir

TOKENIZER = Path(harness.__file__).parent / "assets" / "tokenizers" / "openmoji" / "tokenizer.json"
EXPECTED = {"smoke", "openmoji/teacher", "openmoji/baseline", "openmoji/clipkd"}


def test_the_expected_recipes_are_shipped():
    assert set(recipe_names()) >= EXPECTED


@pytest.mark.parametrize("name", recipe_names())
def test_it_loads_and_its_resolved_form_loads_to_the_same(name, tmp_path):
    recipe = load_recipe(name)
    copy = tmp_path / "recipe.yaml"
    copy.write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe(copy) == recipe
    assert recipe.description


@pytest.mark.parametrize("name", recipe_names())
def test_its_header_says_what_a_reader_needs(name):
    text = (recipes_dir() / f"{name}.yaml").read_text(encoding="utf-8")
    header = text.split("\n\n")[0].split("\nname:")[0]
    if load_recipe(name).published is not None:  # which says the rest, as keys
        assert f"-m harness train {name}\n" in header
        return
    for word in ("# Command:", f"clipkd train {name}", "# Hardware:", "# Time:", "# Expected:"):
        assert word in header


@pytest.mark.parametrize("name", recipe_names())
def test_it_is_in_the_readme(name):
    assert f"`{name}`" in (recipes_dir() / "README.md").read_text(encoding="utf-8")


def test_names_differ_so_that_runs_do_not_share_a_folder():
    names = [load_recipe(name).name for name in recipe_names()]
    assert len(set(names)) == len(names)


def test_the_openmoji_students_differ_in_the_method_alone():
    baseline, clipkd = load_recipe("openmoji/baseline"), load_recipe("openmoji/clipkd")
    for section in ("data", "student", "schedule", "train", "eval", "seed"):
        assert getattr(baseline, section) == getattr(clipkd, section)
    assert baseline.teacher is None
    assert clipkd.teacher is not None


def test_a_text_tower_has_room_for_every_token_of_its_tokenizer():
    for name in recipe_names():
        text = (load_recipe(name).student.config or {"text_cfg": {}})["text_cfg"]
        if text.get("hf_tokenizer_name") == "shipped:openmoji":
            assert text["vocab_size"] == Tokenizer.from_file(str(TOKENIZER)).get_vocab_size()
