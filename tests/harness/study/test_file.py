"""Study files: errors are one sentence with file and line; the shipped study loads."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.config import RecipeError
from harness.study.load import load_study, study_names
from tests.harness.study.studies import TINY, write


def test_every_shipped_study_loads():
    assert "openmoji" in study_names()
    for name in study_names():
        file = load_study(name)
        assert file.study == load_study(f"study/{name}").study == load_study(file.path).study
        assert len(file.study.methods) >= 3


def test_a_variant_is_the_base_recipe_with_its_own_keys_and_the_split_s_sets(tmp_path):
    file = load_study(write(tmp_path), data_root=None)
    recipe = file.recipe("fd", 7, "tuning", {"optim.lr": 0.5})
    assert recipe.loss.weights == {"contrastive": 1, "fd": 100} and recipe.optim.lr == 0.5 and recipe.seed == 7
    assert recipe.train.steps == 4 and recipe.eval.sets == file.study.sets.tuning
    assert file.recipe("crd", 7, "final").eval.sets == file.study.sets.final


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("headline:", "headlin:", r"line \d+: unknown key headlin; did you mean headline\?"),
        ("label: FD", "labell: FD", r"line \d+: unknown key variants\[1\].labell; did you mean variants\[1\].label\?"),
        ("kind: method, published: 3", "kind: methods, published: 3", r"kind must be one of .*'method'.*got 'methods'"),
        (
            "kind: method, published: 3",
            "kind: baseline, published: 3",
            "must have exactly one of kind baseline, got .*fd",
        ),
        ("name: crd", "name: fd", "has two variants named fd"),
        (
            "variant: fd",
            "variant: df",
            r"sweeps\[0\].variant must be the name of a variant, got 'df'; known: baseline, fd",
        ),
        ("zeroshot/top1", "zeroshot/top_1", r"did you mean zeroshot/top1\?"),
        (
            "similarity: retrieval",
            "similarity: zeroshot",
            "must be the name of a retrieval set, got 'zeroshot'; in sets.tuning that is a zeroshot set",
        ),
        ("seeds: [0, 1]", "seeds: [1, 1]", r"seeds must differ, got \[1, 1\]"),
        ("{contrastive: 1, fd: 100}", "{contrastive: 1, fdd: 100}", r"line \d+: .*variant fd: .*did you mean fd\?"),
        ("loss.weights.fd", "loss.wieghts.fd", r"wieghts"),
        ("tune: {key: optim.lr", "tune: {key: optim.lrr", r"lrr; did you mean optim.lr\?"),
    ],
)
def test_an_error_names_its_line(old, new, sentence, tmp_path):
    assert old in TINY
    with pytest.raises(RecipeError, match=sentence):
        load_study(write(tmp_path, TINY.replace(old, new, 1)))


def test_a_missing_study(tmp_path):
    with pytest.raises(RecipeError, match=r"no study nosuch: .*shipped: .*openmoji"):
        load_study("nosuch")
    (tmp_path / "empty.yaml").write_text("")
    with pytest.raises(RecipeError, match="mapping"):
        load_study(Path(tmp_path / "empty.yaml"))
