"""A whole run: what it writes, that it learns, and that the same recipe gives the same weights."""

import json
import logging
import os
import random
import subprocess
import sys

import numpy
import open_clip
import pytest
import torch

from harness.config import load_recipe
from harness.errors import UserError
from harness.metrics import read_metrics
from harness.train import Trainer, train, training_run
from harness.train.distributed import DistributedContext
from tests.harness import tiny
from tests.harness.data.pairs import pair, write_tar


def trainer(tmp_path, **sections) -> Trainer:
    return Trainer(tiny.recipe(**sections), tmp_path, torch.device("cpu"))


def test_a_run_writes_everything_it_promises(tmp_path):
    out = tmp_path / "run"
    summary = train(tiny.recipe(**tiny.DISTILL, train={"save_every": 2}), out, command="clipkd train tiny")
    assert json.loads((out / "summary.json").read_text()) == summary
    assert summary["steps"] == 4
    assert summary["parameters"]["total"] == summary["parameters"]["image"] + summary["parameters"]["text"]
    run = json.loads((out / "run.json").read_text())
    assert (run["command"], run["seed"]) == ("clipkd train tiny", 0)
    assert {"torch", "open_clip_torch", "kdlosses", "python"} <= run["versions"].keys()
    assert load_recipe(out / "recipe.yaml") == tiny.recipe(**tiny.DISTILL, train={"save_every": 2})
    lines = read_metrics(out / "metrics.jsonl")
    assert [line["step"] for line in lines] == [2, 4]
    terms = {"contrastive_loss", "crd_loss", "fd_loss", "icl_loss"}
    assert {"seconds", "images_per_second", "lr", "loss", "logit_scale", "grad_norm"} | terms == lines[0].keys() - {
        "step"
    }
    assert lines[0]["loss"] == pytest.approx(sum(lines[0][term] for term in terms))
    assert sorted(p.name for p in (out / "checkpoints").iterdir()) == [
        "latest.pt",
        "step-0000002.pt",
        "step-0000004.pt",
    ]


def test_checkpoints_load_safely_and_hold_the_losss_parameters_but_not_the_teacher(tmp_path):
    train(tiny.recipe(**tiny.DISTILL), tmp_path / "run")
    state = torch.load(tmp_path / "run" / "checkpoints" / "latest.pt", weights_only=True)
    assert state["step"] == 4
    assert {"cross_logit_scale", "visual_proj.weight", "text_proj.bias"} <= state["loss"].keys()
    assert not any("teacher" in name for name in state["state_dict"])
    model = open_clip.create_model("test-tiny-vit-student", pretrained=str(tmp_path / "run/checkpoints/latest.pt"))
    assert torch.equal(model.logit_scale, state["state_dict"]["logit_scale"])


def test_the_loss_falls_and_its_own_parameters_learn(tmp_path):
    run = trainer(tmp_path, **tiny.DISTILL, optim={"lr": 3e-3}, train={"steps": 30, "log_every": 1})
    before = {name: p.clone() for name, p in run.task.trainable()}
    teacher = {name: p.clone() for name, p in run.models.teachers[0].model.state_dict().items()}
    run.run()
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert lines[-1]["loss"] < 0.8 * lines[0]["loss"]
    for name, parameter in run.task.trainable():
        if name.startswith("loss.") or name == "student.logit_scale":
            assert not torch.equal(parameter, before[name]), name
    for name, value in run.models.teachers[0].model.state_dict().items():
        assert torch.equal(value, teacher[name]), name


def test_a_teacher_is_a_run_like_any_other(tmp_path):
    train(tiny.recipe(name="teacher"), tmp_path / "teacher")
    student = {**tiny.DISTILL, "teacher": {"model": f"run:{tmp_path / 'teacher'}"}}
    run = trainer(tmp_path, **student)
    exported = open_clip.create_model(f"local-dir:{tmp_path / 'teacher' / 'export'}")
    weights = run.models.teachers[0].model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in exported.state_dict().items())
    assert exported.visual.preprocess_cfg["resize_mode"] == "squash"  # as crop: resize shows images


def test_same_recipe_same_weights_another_seed_others(tmp_path):
    recipe = {**tiny.DISTILL, "data": {"augment": {"scale": [0.9, 1.1], "rotate": 0.1, "shift": 0.1}}}
    runs = []
    for number, seed in enumerate((3, 3, 4)):
        folder = tmp_path / str(number)
        folder.mkdir()
        runs.append(trainer(folder, **recipe, seed=seed))
        runs[-1].run()
    first, same, other = ([p for _, p in run.task.trainable()] for run in runs)
    assert all(torch.equal(a, b) for a, b in zip(first, same, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precisions_train(tmp_path, precision):
    run = trainer(tmp_path, **tiny.DISTILL, train={"precision": precision, "steps": 3, "log_every": 1})
    run.run()
    assert all(p.dtype == torch.float32 for _, p in run.task.trainable())
    assert all(torch.isfinite(p).all() for _, p in run.task.trainable())


def test_scales_stay_at_most_100_and_gradients_are_clipped(tmp_path):
    run = trainer(tmp_path, **tiny.DISTILL, optim={"grad_clip": 0.01})
    with torch.no_grad():
        run.task.student.logit_scale.fill_(9.0)
        run.task.loss.cross_logit_scale.fill_(9.0)
    run.train_step(next(run.loader))
    assert run.task.student.logit_scale.exp().item() == pytest.approx(100)
    assert run.task.loss.cross_logit_scale.exp().item() == pytest.approx(100)
    norm = torch.stack([p.grad.norm() for _, p in run.task.trainable() if p.grad is not None]).norm()
    assert norm.item() == pytest.approx(0.01, rel=1e-3)


def test_epochs_become_steps(tmp_path):
    assert trainer(tmp_path, train={"steps": None, "epochs": 5}).steps == 5 * 48 // 16


def test_a_loss_that_is_not_finite_stops_the_run_naming_the_term(tmp_path):
    run = trainer(tmp_path, **tiny.DISTILL)
    with torch.no_grad():
        run.task.loss.visual_proj.weight.fill_(float("nan"))
    with pytest.raises(UserError, match=r"fd_loss, icl_loss, grad_norm became NaN or infinite in step 1, "):
        run.run()
    assert not (tmp_path / "checkpoints").exists()


def test_neither_a_finished_nor_an_interrupted_run_is_overwritten_unasked(tmp_path, monkeypatch):
    out = tmp_path / "run"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training_run, "export_model", lambda *args, **kwargs: (_ for _ in ()).throw(KeyboardInterrupt))
        train(tiny.recipe(), out)
    assert not (out / "summary.json").exists()
    with pytest.raises(UserError, match=r"interrupted run .* step-0000004.pt; add --resume .* or --overwrite"):
        train(tiny.recipe(), out)
    assert train(tiny.recipe(), out, overwrite=True)["steps"] == 4
    with pytest.raises(UserError, match="already holds a finished run"):
        train(tiny.recipe(), out)


def test_a_folder_that_is_no_run_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("dear")
    with pytest.raises(UserError, match="not a clipkd run"):
        train(tiny.recipe(), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_warm_up_longer_than_the_epochs_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"train\.epochs makes 3 steps"):
        trainer(tmp_path, train={"steps": None, "epochs": 1}, schedule={"warmup_steps": 4})


def test_an_evaluation_that_fails_says_that_the_model_is_safe(tmp_path, monkeypatch):
    monkeypatch.setattr(
        training_run, "evaluate_cached", lambda *_, **__: (_ for _ in ()).throw(UserError("sample x is broken"))
    )
    with pytest.raises(UserError, match=r"sample x is broken; the trained model is safe in .*run/export"):
        train(tiny.recipe(), tmp_path / "run")
    assert (tmp_path / "run" / "export" / "open_clip_model.safetensors").is_file()


def test_a_run_killed_in_its_first_write_is_no_stranger(tmp_path):
    (tmp_path / "recipe.yaml.tmp").write_text("name: ti")
    assert train(tiny.recipe(), tmp_path)["steps"] == 4


def test_a_run_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be created: Not a directory"):
        train(tiny.recipe(), tmp_path / "file" / "run")


def test_skipped_samples_are_warned_of_before_the_first_step(tmp_path, caplog, capsys):
    write_tar(tmp_path / "0.tar", [("broken", {"png": b"", "txt": b"x"}), *map(pair, range(40))])
    run = trainer(tmp_path, data={"train": str(tmp_path / "0.tar")})
    at_step = []
    take = run.train_step
    run.train_step = lambda batch: at_step.append(len(caplog.records)) or take(batch)
    with caplog.at_level(logging.INFO, "harness"):
        run.run()
    described, skipped = caplog.records
    assert described.getMessage().startswith("tiny: student test-tiny-vit-student")
    assert skipped.levelno == logging.WARNING and "tiny: skipped broken samples (1 " in skipped.getMessage()
    assert at_step == [2] * 4
    assert "tiny 2/4 eta" in capsys.readouterr().out.splitlines()[0]


def test_missing_evaluation_sets_are_found_before_training(tmp_path):
    sets = {"sets": [{"name": "val", "kind": "retrieval", "path": str(tmp_path / "nowhere")}]}
    with pytest.raises(UserError, match=r"evaluation set val in .*nowhere: no such folder"):
        train(tiny.recipe(eval=sets), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_cuda_is_not_silently_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="torch sees no CUDA device"):
        train(tiny.recipe(train={"device": "cuda"}), tmp_path / "run")


@pytest.mark.slow
def test_a_full_disk_is_one_sentence(tmp_path):
    """A real full disk: a tmpfs of 1 MB; needs the right to mount, so it is skipped where that is not given."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("mounting a small tmpfs is not allowed here")
    try:
        done = subprocess.run(
            [sys.executable, "-m", "harness", "train", "smoke", "--out", str(disk / "run")],
            capture_output=True,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert f"error: no space left on the disk for {disk}" in done.stderr


def test_several_teachers_train_from_a_recipe(tmp_path, caplog):
    other = {**tiny.TEACHER, "embed_dim": 40}
    teachers = [
        {"model": "test-tiny-first", "config": tiny.TEACHER, "weight": 2.0},
        {"model": "test-tiny-second", "config": other},
    ]
    caplog.set_level(logging.INFO, "harness")
    train(tiny.recipe(teachers=teachers, loss=tiny.DISTILL["loss"]), tmp_path / "run")
    assert "teacher-1 test-tiny-first" in caplog.text and "teacher-2 test-tiny-second" in caplog.text
    state = torch.load(tmp_path / "run" / "checkpoints" / "latest.pt", weights_only=True)
    assert {"teachers.0.visual_proj.weight", "teachers.1.cross_logit_scale"} <= state["loss"].keys()
    with pytest.raises(ValueError, match="cannot stand beside `teacher`"):
        tiny.recipe(teachers=teachers, **tiny.DISTILL)


def test_each_rank_draws_for_itself(tmp_path):
    run = trainer(tmp_path, seed=3)
    draws = []
    for rank in range(2):
        run.distributed = DistributedContext(rank, rank, world_size=2)
        run._seed_own_draws()
        draws.append((torch.rand(3, generator=run.generator).tolist(), random.random(), numpy.random.rand()))
    assert not {str(draw) for draw in draws[0]} & {str(draw) for draw in draws[1]}


def test_the_learning_rate_follows_the_schedule(tmp_path):
    schedule = {"kind": "constant", "warmup_steps": 4}
    trainer(tmp_path, schedule=schedule, optim={"lr": 1e-3}, train={"steps": 5, "log_every": 1}).run()
    rates = [line["lr"] for line in read_metrics(tmp_path / "metrics.jsonl")]
    assert rates == pytest.approx([0.25e-3, 0.5e-3, 0.75e-3, 1e-3, 1e-3])


def test_the_loss_scale_of_fp16_is_taken_off_the_gradients(tmp_path):
    norms = []
    for precision in ("fp32", "fp16"):
        (tmp_path / precision).mkdir()
        run = trainer(tmp_path / precision, **tiny.DISTILL, train={"precision": precision})
        run.scaler.scale(torch.ones(()))
        run.scaler.update(16.0)
        norms.append(run.train_step(next(run.loader))[1]["grad_norm"].item())
    assert norms[1] == pytest.approx(norms[0], rel=0.05)
