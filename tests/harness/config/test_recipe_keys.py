"""A key of a recipe that is accepted has its effect, or is refused: each of them is changed."""

from __future__ import annotations

import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from harness.config import RecipeError, load_recipe
from harness.config.keys import all_keys, section_of
from harness.errors import UserError
from harness.metrics import read_metrics
from harness.train.distributed import DistributedContext
from harness.train.messages import describe_run
from harness.train.trainer import Trainer
from harness.train.training_run import _set_up_torch as set_up_torch
from tests.harness import tiny

SET = {"name": "pairs", "kind": "retrieval", "path": "synthetic:30"}
BASE = {
    "name": "keys",
    "data": {"train": "pairs.csv", "crop_scale": [0.5, 0.6]},
    "student": {"model": "test-keys-student", "config": tiny.STUDENT},
    "teacher": {"model": "test-keys-teacher", "config": tiny.TEACHER},
    "loss": {"weights": {"contrastive": 1, "fd": 100, "mfd": 100, "gd": 1, "affinity": 1}},
    "train": {"batch_size": 16, "steps": 3, "device": "cpu", "log_every": 3, "threads": 1},
    "eval": {"sets": [SET], "every": 3},
}
SECOND = {"model": "test-keys-second", "config": {**tiny.TEACHER, "embed_dim": 20}}
TWO = [{**BASE["teacher"], "weight": 1}, {**SECOND, "weight": 1}]
# What is set for each key, with what else it needs; `null` first where another key has to go.
CHANGED = {
    "seed": {"seed": 1},
    "paths.data_root": {"data.train": "${data_root}/pairs.csv", "paths.data_root": "moved"},
    "data.train[].path": {"data.train": [{"path": "other.csv"}]},
    "data.train[].root": {"data.train": [{"path": "pairs.csv", "root": "others"}]},
    "data.train[].weight": {"data.train": [{"path": "pairs.csv", "weight": 0.5}]},
    "data.root": {"data.root": "others"},
    "data.csv_separator": {"data.csv_separator": ";"},
    "data.csv_image_key": {"data.csv_image_key": "picture"},
    "data.csv_caption_key": {"data.csv_caption_key": "caption"},
    "data.image_size": {"data.image_size": 40},
    "data.crop": {"data.crop": "resize", "data.crop_scale": [0.9, 1.0]},
    "data.crop_scale": {"data.crop_scale": [0.2, 0.3]},
    "data.augment.scale": {"data.augment.scale": [0.5, 0.6]},
    "data.augment.rotate": {"data.augment.rotate": 0.5},
    "data.augment.shift": {"data.augment.shift": 0.3},
    "data.cache": {"data.cache": "memory"},
    "data.max_image_pixels": {"data.max_image_pixels": 10},
    "data.image_formats": {"data.image_formats": ["jpeg"]},
    "data.max_skip_rate": {"data.train": "broken.csv", "data.cache": "memory", "data.max_skip_rate": 0.5},
    "student.model": {"student.model": "ViT-B-32"},
    "student.pretrained": {"student.pretrained": "missing.pt"},
    "student.config": {"student.config.embed_dim": 24},
    "teacher.model": {"teacher.model": "nobody", "teacher.config": None},
    "teacher.pretrained": {"teacher.pretrained": "missing.pt"},
    "teacher.config": {"teacher.config.embed_dim": 16},
    "teachers[].model": {"teacher": None, "teachers": [TWO[0], {"model": "nobody"}]},
    "teachers[].pretrained": {"teacher": None, "teachers": [TWO[0], {**TWO[1], "pretrained": "missing.pt"}]},
    "teachers[].config": {"teacher": None, "teachers": TWO},
    "teachers[].weight": {"teacher": None, "teachers": [TWO[0], {**TWO[1], "weight": 3}]},
    "teacher_cache.use": {"teacher_cache.use": True},
    "loss.variant": {"loss.variant": "released"},
    "loss.backend_options": {"loss.backend": "chunked", "loss.backend_options": {"chunk_size": 3}},
    "loss.weights": {"loss.weights.fd": 10},
    "loss.options": {"loss.options.affinity.student_scale": 3.0},
    "loss.terms": {"loss.weights.soft": 1.0, "loss.terms.soft": {"loss": "affinity", "teacher_scale": 9.0}},
    "loss.mask_ratio": {"loss.mask_ratio": 0.5},
    "loss.mask_kind": {"loss.mask_kind": "pixels"},
    "optim.lr": {"optim.lr": 2e-3},
    "optim.weight_decay": {"optim.weight_decay": 0.5},
    "optim.betas": {"optim.betas": [0.5, 0.6]},
    "optim.eps": {"optim.eps": 1e-2},
    "optim.grad_clip": {"optim.grad_clip": 1e-3, "optim.eps": 1e-2},
    "optim.loss_lr": {"optim.loss_lr": 1e-2},
    "optim.loss_weight_decay": {"optim.loss_weight_decay": 0.5},
    "schedule.warmup_steps": {"schedule.warmup_steps": 2},
    "schedule.kind": {"schedule.kind": "constant"},
    "schedule.min_lr": {"schedule.min_lr": 5e-4},
    "train.batch_size": {"train.batch_size": 12},
    "train.steps": {"train.steps": 4},
    "train.epochs": {"train.steps": None, "train.epochs": 2},
    "train.precision": {"train.precision": "bf16"},
    "train.channels_last": {"train.channels_last": True},
    "train.log_every": {"train.log_every": 1},
    "train.save_every": {"train.save_every": 1},
    "train.keep_last": {"train.keep_last": 1, "train.save_every": 1},
    "eval.sets[].name": {"eval.sets": [{**SET, "name": "other"}]},
    "eval.sets[].kind": {"eval.sets": [{**SET, "kind": "zeroshot"}]},
    "eval.sets[].path": {"eval.sets": [{**SET, "path": "synthetic:20"}]},
    "eval.sets[].dataset": {"eval.sets": [{**SET, "path": "nowhere", "dataset": "cifar10"}]},
    "eval.suite": {"eval.suite": "no-such.yaml", "eval.root": "moved"},
    "eval.every": {"eval.every": 1},
    "eval.online": {"eval.sets": [SET, {**SET, "name": "second"}], "eval.online": ["second"]},
    "eval.best": {"eval.best": "pairs/i2t_r1"},
}
# What the change is compared with, where that is not BASE: its other keys without the one.
BESIDE = {
    "paths.data_root": {"data.train": "${data_root}/pairs.csv"},
    "data.crop": {"data.crop_scale": [0.9, 1.0]},
    "data.max_skip_rate": {"data.train": "broken.csv", "data.cache": "memory"},
    "teachers[].weight": {"teacher": None, "teachers": TWO},
    "loss.backend_options": {"loss.backend": "chunked"},
    "optim.grad_clip": {"optim.eps": 1e-2},
    "train.keep_last": {"train.save_every": 1},
    "eval.online": {"eval.sets": [SET, {**SET, "name": "second"}]},
}
# Seen only where several processes, another device, a fault or another command is at work, or nowhere in the result.
ELSEWHERE = {
    "name", "description", "paths.weights_root", "data.workers", "teacher_cache.views", "teacher_cache.path",
    "loss.backend", "train.accum_freq", "train.parallel", "train.device", "train.compile", "train.on_nonfinite",
    "train.max_nonfinite", "train.stall_timeout", "train.stall_abort_timeout", "train.threads", "train.flush_denormal",
    "eval.sets[].stock_decoding", "eval.sets[].protocol", "eval.sets[].image_formats", "eval.root",
    "eval.missing", "eval.batch_size", "eval.workers",
}  # fmt: skip


def leaves():
    return [key.name for key in all_keys() if section_of(key.field.annotation)[0] is None]


def test_each_key_is_changed_here_or_elsewhere():
    others = [name for name in leaves() if name not in CHANGED and name not in ELSEWHERE]
    assert [name for name in others if not name.startswith("published.")] == []
    assert set(CHANGED) | ELSEWHERE <= set(leaves()) and not set(CHANGED) & ELSEWHERE


def test_torch_is_told_of_threads_and_denormals(monkeypatch):
    told = {}
    monkeypatch.setattr(torch, "set_num_threads", lambda count: told.update(threads=count))
    monkeypatch.setattr(torch, "set_flush_denormal", lambda value: told.update(flush=value))
    set_up_torch(tiny.recipe(train={"threads": 3, "flush_denormal": True}))
    assert told == {"threads": 3, "flush": True}


def test_the_watchdog_is_told_of_both_times(tmp_path):
    recipe = tiny.recipe(train={"stall_timeout": 7.0, "stall_abort_timeout": 9.0})
    trainer = SimpleNamespace(recipe=recipe, out=tmp_path, distributed=DistributedContext())
    told = vars(Trainer._watchdog(trainer))
    assert 7.0 in told.values() and 9.0 in told.values()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folders of 48 pictures, and lists of them: all, in the other order, of another folder, and with broken ones."""
    root = tmp_path_factory.mktemp("keys")
    noise = np.random.default_rng(0)
    for place in (".", "others", "moved"):
        (root / place / "images").mkdir(parents=True, exist_ok=True)
        for number in range(48):
            pixels = noise.integers(0, 255, (40, 50, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / place / f"images/{number}.png")
    for number in range(12):
        (root / f"images/broken{number}.png").write_bytes(b"broken")
    rows = [(f"images/{number}.png", f"number {number}", f"images/{47 - number}.png", "text") for number in range(48)]
    lists = {"pairs": rows, "other": rows[::-1], "moved/pairs": rows}
    lists["broken"] = [*rows, *[(f"images/broken{number}.png", "x", "x", "x") for number in range(12)]]
    for name, content in lists.items():
        with (root / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("filepath", "title", "picture", "caption"), *content])
    return root


def outcome(changes, out):
    """What a short run of BASE with changes leaves, or why it is refused."""
    (out.parent / f"{out.name}.yaml").write_text(json.dumps(BASE))
    overrides = [f"{key}={json.dumps(value)}" for key, value in changes.items()]
    try:
        trainer = Trainer(load_recipe(out.parent / f"{out.name}.yaml", overrides), out, torch.device("cpu"))
        trainer.run()
    except (UserError, RecipeError) as error:
        return str(error)
    numbers = [
        {k: v for k, v in line.items() if k not in ("seconds", "images_per_second")}
        for line in read_metrics(out / "metrics.jsonl")
    ]
    weights = [value.clone() for value in trainer.task.state_dict().values()]
    memory = [value.stride() for value in trainer.task.state_dict().values()]
    files = sorted(str(file.relative_to(out)) for file in out.rglob("*"))
    return numbers, memory, files, describe_run(trainer), [value.tolist() for value in weights if value.numel() < 1e5]


@pytest.mark.slow
@pytest.mark.parametrize("key", CHANGED)
def test_a_changed_key_makes_a_difference_or_is_refused(key, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    if not (folder / "data").exists():
        (folder / "data").symlink_to(folder)
    for name in ("before", "after"):
        (tmp_path / name).mkdir()
    before = outcome(BESIDE.get(key, {}), tmp_path / "before")
    assert outcome(CHANGED[key], tmp_path / "after") != before
