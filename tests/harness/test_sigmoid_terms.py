"""Recipes with sigmoid terms: a SigLIP student's bias is trained, its teacher's is read live and from a cache."""

from __future__ import annotations

import pytest
import torch

from harness.config import ModelConfig
from harness.data import Batch
from harness.errors import UserError
from harness.metrics import read_metrics
from harness.models import LoadedModel, create_model, load_model
from harness.task import DistillTask, teacher_roles
from harness.teachers.build import build_cache
from harness.train import train
from tests.harness import tiny
from tests.harness.teachers.teacher_caches import data, recipe

SIGMOIDS = {"siglip": 1, "sigmoid_kd": 1}
CAPTIONS = ["a red apple", "two dogs", "the sea", "a house"]
STUDENT = {"model": "test-sigmoid-student", "config": {**tiny.STUDENT, "init_logit_bias": -4}}
TEACHER = {"model": "test-sigmoid-teacher", "config": {**tiny.TEACHER, "init_logit_bias": -5}}
SOFTMAX = {"model": "test-softmax-model", "config": tiny.TEACHER}


def make(student: dict, teachers: list[dict], weights: dict[str, float]):
    """A task, its models and four pairs."""
    models = [create_model(ModelConfig(**section)) for section in (student, *teachers)]
    config = tiny.recipe(teacher=TEACHER, loss={"weights": weights}).loss
    task = DistillTask(models[0], models[1:], config).train()
    roles = zip(("student", *teacher_roles(len(teachers))), models, strict=True)
    tokens = {role: model.tokenizer(CAPTIONS) for role, model in roles}
    batch = Batch(torch.zeros(4, 3, 48, 48, dtype=torch.uint8), tokens, CAPTIONS, CAPTIONS)
    return task, models, task.inputs(torch.rand(4, 3, 48, 48), batch)


def losses(task: DistillTask, inputs) -> dict[str, torch.Tensor]:
    return task(inputs, torch.Generator().manual_seed(0))


def test_the_students_bias_learns_and_the_teachers_is_read():
    task, (student, teacher), inputs = make(STUDENT, [TEACHER], SIGMOIDS)
    assert {"student.logit_bias", "student.logit_scale"} <= dict(task.trainable()).keys()
    found = losses(task, inputs)
    assert list(found) == ["siglip_loss", "sigmoid_kd_loss"]
    sum(found.values()).backward()
    assert student.model.logit_bias.grad != 0 and student.model.logit_scale.grad != 0
    with torch.no_grad():
        teacher.model.logit_bias += 1
    again = losses(task, inputs)
    assert torch.equal(again["siglip_loss"], found["siglip_loss"])
    assert not torch.equal(again["sigmoid_kd_loss"], found["sigmoid_kd_loss"])


def test_the_siglip_loss_alone_runs_no_teacher():
    task, _, inputs = make(STUDENT, [TEACHER], {"siglip": 1, "sigmoid_kd": 0})
    assert len(task.teachers) == 0
    assert list(losses(task, inputs)) == ["siglip_loss"]


def test_several_teachers_each_have_a_bias():
    other = {"model": "test-sigmoid-other", "config": {**tiny.STUDENT, "init_logit_bias": -9}}
    task, _, inputs = make(STUDENT, [TEACHER, other], SIGMOIDS)
    found = losses(task, inputs)
    sum(found.values()).backward()
    assert task.student.logit_bias.grad != 0
    for model in task.teachers:
        before = found["sigmoid_kd_loss"].detach()
        with torch.no_grad():
            model.logit_bias += 1
        found = losses(task, inputs)
        assert not torch.equal(found["sigmoid_kd_loss"], before)


@pytest.mark.parametrize(
    ("student", "teachers", "words"),
    [
        (SOFTMAX, [TEACHER], r"student test-softmax-model has no logit_bias, which loss.weights.siglip reads"),
        (STUDENT, [SOFTMAX], r"teacher test-softmax-model has no logit_bias, which loss.weights.sigmoid_kd reads"),
        (STUDENT, [TEACHER, SOFTMAX], r"teacher test-softmax-model .* a CLIP's sigmoid means nothing"),
    ],
    ids=["student", "teacher", "one-of-two"],
)
def test_a_model_without_a_bias_is_refused_before_any_data(student, teachers, words):
    with pytest.raises(UserError, match=words):
        make(student, teachers, SIGMOIDS)


def test_distillation_needs_a_teacher_and_the_siglip_loss_does_not():
    assert tiny.recipe(loss={"weights": {"siglip": 1}}).loss.reading("teacher") == ()
    with pytest.raises(ValueError, match="needs a teacher, but the recipe has none"):
        tiny.recipe(loss={"weights": SIGMOIDS})


def loaded(folder) -> LoadedModel:
    return load_model(f"run:{folder}")


def test_a_run_trains_the_bias_live_and_from_a_cache(tmp_path):
    """Where views are not random, both runs see the same ones; the cache knows the teacher's bias."""
    wanted = recipe(data("csv", tmp_path, 9), tmp_path, student=STUDENT, teacher=TEACHER, loss={"weights": SIGMOIDS},
                    data={"crop": "resize", "augment": None},
                    train={"batch_size": 4, "steps": 3, "accum_freq": 2, "log_every": 1})  # fmt: skip
    build_cache(wanted)
    used = wanted.model_copy(update={"teacher_cache": wanted.teacher_cache.model_copy(update={"use": True})})
    for out, one in (("live", wanted), ("cached", used)):
        train(one, tmp_path / out)
        assert loaded(tmp_path / out).model.logit_bias.item() != -4
    live, cached = (next(iter(read_metrics(tmp_path / out / "metrics.jsonl"))) for out in ("live", "cached"))
    assert cached["siglip_loss"] == live["siglip_loss"]
    assert cached["sigmoid_kd_loss"] == pytest.approx(live["sigmoid_kd_loss"], rel=2**-7)
