"""A run with teacher_cache.use: the same losses as with the live teacher, whose weights are never loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.config import LossConfig
from harness.errors import UserError
from harness.teachers.build import build_cache
from harness.train import models, train
from tests.harness import tiny
from tests.harness.teachers.teacher_caches import KINDS, data, recipe

# Without a projection the loss has no random numbers of its own, which come after the teacher's where it is loaded.
SAME_WIDTH = {"model": "test-tiny-teacher-16", "config": {**tiny.TEACHER, "embed_dim": 16}}


def run(wanted, out: Path) -> list[dict]:
    train(wanted, out)
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def used(wanted):
    return wanted.model_copy(update={"teacher_cache": wanted.teacher_cache.model_copy(update={"use": True})})


@pytest.mark.parametrize(
    ("kind", "cache"),
    [
        ("csv", "none"),
        ("shards", "memory"),
        *(
            pytest.param(kind, cache, marks=pytest.mark.slow)
            for kind in KINDS
            for cache in ("none", "memory")
            if (kind, cache) not in (("csv", "none"), ("shards", "memory"))
        ),
    ],
)
def test_the_first_losses_are_those_of_the_live_teacher(kind, cache, tmp_path):
    """Where views are not random, both runs see the same ones in the same order."""
    shape = {"crop": "resize", "augment": None, "cache": cache}
    wanted = recipe(data(kind, tmp_path, 9), tmp_path, teacher=SAME_WIDTH, data=shape,
                    train={"batch_size": 4, "steps": 3, "log_every": 1})  # fmt: skip
    build_cache(wanted)
    live, cached = run(wanted, tmp_path / "live"), run(used(wanted), tmp_path / "cached")
    assert cached[0]["contrastive_loss"] == live[0]["contrastive_loss"]
    for term in ("crd_loss", "fd_loss", "icl_loss"):
        # One step of float16 is 2**-11; logits are at most 14.3 times a cosine.
        assert cached[0][term] == pytest.approx(live[0][term], rel=2**-7)
        assert cached[0][term] != live[0][term]
    assert cached[-1]["loss"] == pytest.approx(live[-1]["loss"], rel=2**-7)


def test_random_views_and_several_teachers_train_and_no_teacher_is_loaded(tmp_path, monkeypatch):
    teachers = [{"model": "test-a", "config": tiny.TEACHER}, {"model": "test-b", "config": SAME_WIDTH["config"]}]
    steps = {"batch_size": 4, "steps": 5, "accum_freq": 2, "log_every": 1}
    wanted = recipe(data("csv", tmp_path, 9), tmp_path, teacher=None, teachers=teachers, teacher_cache={"views": 2},
                    data={"workers": 1}, train=steps)  # fmt: skip
    build_cache(wanted)
    loaded = []
    create = models.create_student
    monkeypatch.setattr(models, "create_model", lambda config: loaded.append(config.model))
    monkeypatch.setattr(models, "create_student", lambda recipe: loaded.append(recipe.student.model) or create(recipe))
    assert len(run(used(wanted), tmp_path / "run")) == 5
    assert loaded == [wanted.student.model]


def test_the_student_alone_trains_on_the_cached_views(tmp_path):
    """The same views as with a teacher, so that a baseline differs by its loss alone."""
    losses = {"weights": {"contrastive": 1}}
    wanted = recipe(data("csv", tmp_path, 9), tmp_path, teacher=SAME_WIDTH, teacher_cache={"views": 2},
                    train={"batch_size": 4, "steps": 3, "log_every": 1})  # fmt: skip
    build_cache(wanted)
    taught = run(used(wanted), tmp_path / "taught")
    alone = run(used(wanted.model_copy(update={"loss": LossConfig.model_validate(losses)})), tmp_path / "alone")
    assert alone[0]["contrastive_loss"] == taught[0]["contrastive_loss"]
    assert "crd_loss" in taught[0] and "crd_loss" not in alone[0]


def test_a_run_without_its_cache_ends_before_it_begins(tmp_path):
    wanted = used(recipe(data("csv", tmp_path, 9), tmp_path, train={"batch_size": 4, "steps": 3}))
    with pytest.raises(UserError, match=r"there is no teacher cache of test-tiny-teacher"):
        train(wanted, tmp_path / "run")
