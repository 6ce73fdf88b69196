"""open_clip's own trainer with our loss, run for real: one process here, several in test_open_clip_train_ranks.py."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import subprocess
import sys
import warnings
import zipfile
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import open_clip
import pytest
import torch
import yaml

import kdlosses
from harness.config import yamltext
from kdlosses.integrations.attach import attach_loss, without_loss
from kdlosses.integrations.open_clip_train import strict_yaml
from kdlosses.integrations.open_clip_train.command import expand_argument, main
from kdlosses.integrations.open_clip_train.errors import ConfigError
from kdlosses.integrations.open_clip_train.objective import Objective
from kdlosses.integrations.open_clip_train.run import NAMES
from kdlosses.integrations.open_clip_train.settings import KEYS, read_settings
from kdlosses.integrations.open_clip_train.teacher import Teacher
from tests.grid import tiers
from tests.integrations import open_clip_runs as runs
from tests.integrations.open_clip_runs import NARROW, WEIGHTS, WIDE, arguments, checkpoint, ours, shards
from tests.problems import Problem

MODELS = {
    NARROW: runs.config(12),
    WIDE: runs.config(20),
    "kd-test-large": runs.config(20, vision_cfg={"image_size": 24}),
    "kd-test-long": runs.config(20, text_cfg={"context_length": 9}),
    "kd-test-lower": runs.config(20, text_cfg={"tokenizer_kwargs": {"clean": "lower"}}),
    "kd-test-tokens": runs.config(20, text_cfg={"tokenizer_kwargs": {"additional_special_tokens": ["dogs"]}}),
    "kd-test-sigmoid": runs.config(20) | {"init_logit_bias": -10},
}
LOSS_NAMES = [f"kd_loss.{name}" for name in ("cross_logit_scale", "visual_proj.weight", "visual_proj.bias")]
LOSS_NAMES += [f"kd_loss.{name}" for name in ("text_proj.weight", "text_proj.bias")]
EXACT = {"contrastive": 1, "affinity": 1}
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    made = tmp_path_factory.mktemp("open_clip")
    runs.make(made, MODELS)
    yield made
    open_clip.factory._MODEL_CONFIG_PATHS.remove(made / "configs")
    for name in MODELS:
        del open_clip.factory._MODEL_CONFIGS[name]


class Watched:
    """A run of two epochs with validation after each, and what was seen of it."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.asked, names = 0, {name: getattr(runs.trainer, name) for name in NAMES}
        features = Teacher._features

        def counted(teacher: Teacher, *args: Any) -> Any:
            self.asked += 1
            return features(teacher, *args)

        patch.setattr(Teacher, "_features", counted)
        argv = arguments(folder, "watched", "--epochs", 2, "--val-data", folder / "pairs.csv", "--local-loss")
        with warnings.catch_warnings(record=True) as self.warnings, runs.epochs():
            warnings.simplefilter("always")
            self.code = ours(folder, argv)
        self.restored = all(getattr(runs.trainer, name) is function for name, function in names.items())
        self.folder, self.end = folder, checkpoint(folder, "watched", 2)


@pytest.fixture(scope="module")
def watched(folder) -> Watched:
    with pytest.MonkeyPatch.context() as patch:
        return Watched(folder, patch)


class TestARun:
    def test_ends_well_and_leaves_the_trainer_as_it_was(self, watched):
        assert watched.code == 0
        assert watched.restored

    def test_no_warning_of_untrained_parameters(self, watched):
        assert not [w for w in watched.warnings if issubclass(w.category, kdlosses.UntrainedParametersWarning)]

    def test_the_losses_parameters_are_in_the_checkpoint_and_learn(self, watched):
        first, state = checkpoint(watched.folder, "watched")["state_dict"], watched.end["state_dict"]
        assert [name for name in state if name.startswith("kd_loss.")] == LOSS_NAMES
        assert all(not torch.equal(first[name], state[name]) for name in LOSS_NAMES)

    def test_they_are_in_the_optimizer_decayed_like_the_students(self, watched):
        optimizer, state = watched.end["optimizer"], watched.end["state_dict"]
        free, decayed = (len(group["params"]) for group in optimizer["param_groups"])
        assert free + decayed == len(state) == len(optimizer["state"])
        # The trainer's rule: what has less than two dimensions, or a name like these, is not decayed.
        exempt = re.compile("bn|ln|bias|logit_scale")
        assert free == sum(tensor.ndim < 2 or bool(exempt.search(name)) for name, tensor in state.items())

    def test_the_teacher_is_asked_in_training_alone(self, watched):
        assert watched.asked == 2 * runs.PAIRS // runs.BATCH
        assert runs.log(watched.folder, "watched").count("Eval Epoch: 2 image_to_text_mean_rank") == 1

    def test_the_student_is_exported_without_a_trace_of_the_loss(self, watched):
        out = watched.folder / "logs" / "watched" / "student.pt"
        model = open_clip.create_model(NARROW, pretrained=str(out))  # strict
        expected = without_loss(watched.end["state_dict"])
        assert len(expected) == len(watched.end["state_dict"]) - len(LOSS_NAMES)
        assert model.state_dict().keys() == expected.keys()
        assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())

    def test_the_log_says_what_is_trained(self, watched):
        text = runs.log(watched.folder, "watched")
        assert (
            "loss 1 contrastive + 1 crd + 10 fd + 1 icl, variant='paper', backend='auto'; teacher kd-test-wide" in text
        )
        assert "--local-loss is ignored" in text
        params = (watched.folder / "logs" / "watched" / "params.txt").read_text()
        assert f"kd_teacher_model: {WIDE}" in params
        assert f"kd_loss: {{'weights': {WEIGHTS}}}" in params

    def test_a_second_run_of_that_name_ends_with_an_error(self, watched, capsys):
        assert ours(watched.folder, arguments(watched.folder, "watched")) == 1
        assert "Experiment already exists" in capsys.readouterr().out


@pytest.fixture(scope="module")
def plain(folder) -> str:
    """An epoch without distillation, by open_clip alone."""
    runs.stock(arguments(folder, "plain", teacher=None))
    return str(folder / "logs" / "plain" / "checkpoints" / "epoch_1.pt")


class TestResuming:
    def test_an_interrupted_run_ends_where_the_other_did(self, watched, folder):
        def stop(epoch: int) -> None:
            if epoch == 1:
                raise KeyboardInterrupt

        argv = arguments(folder, "stopped", "--epochs", 2)
        with pytest.raises(KeyboardInterrupt), runs.epochs(stop):
            ours(folder, argv)
        with runs.epochs():
            assert ours(folder, [*argv, "--resume", "latest"]) == 0
        end = checkpoint(folder, "stopped", 2)
        assert end["state_dict"].keys() == watched.end["state_dict"].keys()
        for name, value in end["state_dict"].items():
            assert torch.equal(value, watched.end["state_dict"][name]), name
        assert str(end["optimizer"]) == str(watched.end["optimizer"])

    def test_a_plain_run_goes_on_with_fresh_parameters(self, folder, plain):
        first = torch.load(plain, weights_only=True)
        assert (
            ours(folder, arguments(folder, "from-plain", "--epochs", 2, "--lr", 0, "--wd", 0, "--resume", plain)) == 0
        )
        assert "plain/checkpoints/epoch_1.pt has no parameters of a loss: kd_loss.cross_logit" in runs.log(
            folder, "from-plain"
        )
        end = checkpoint(folder, "from-plain", 2)
        assert all(torch.equal(value, end["state_dict"][name]) for name, value in first["state_dict"].items())
        steps = steps_by_name(end)
        # The optimizer goes on where it was for the student, and begins for the loss.
        assert {steps[name] for name in LOSS_NAMES} == {2}
        assert {value for name, value in steps.items() if name not in LOSS_NAMES} == {4}

    def test_an_optimizer_of_other_parameters_is_not_made_to_fit(self, folder, plain):
        with pytest.raises(ValueError, match="parameter group that doesn't match the size"):
            ours(folder, arguments(folder, "from-other", "--lock-image", "--resume", plain))

    def test_a_bare_model_is_a_start_too(self, folder, plain):
        bare = folder / "bare.pt"
        torch.save(torch.load(plain, weights_only=True)["state_dict"], bare)
        assert ours(folder, arguments(folder, "from-bare", "--lr", 0, "--wd", 0, "--resume", bare)) == 0
        assert "bare.pt has no parameters of a loss" in runs.log(folder, "from-bare")
        end = checkpoint(folder, "from-bare")["state_dict"]
        assert all(torch.equal(value, end[name]) for name, value in torch.load(bare, weights_only=True).items())

    def test_another_losses_checkpoint_is_refused(self, watched, folder, capsys):
        path = folder / "logs" / "watched" / "checkpoints" / "epoch_1.pt"
        assert ours(folder, arguments(folder, "other-loss", "--resume", path), {"weights": {"afd": 1}}) == 2
        message = capsys.readouterr().err
        assert "was trained with another loss or teacher: kd_loss." in message
        assert "--pretrained" in message

    def test_a_teacher_of_another_width_is_refused(self, watched, folder, capsys):
        path = folder / "logs" / "watched" / "checkpoints" / "epoch_1.pt"
        assert ours(folder, arguments(folder, "other-teacher", "--resume", path, teacher=NARROW)) == 2
        assert "kd_loss.visual_proj.weight is [20, 12] there and absent here" in capsys.readouterr().err


def steps_by_name(saved: dict[str, Any]) -> dict[str, int]:
    """How many steps the optimizer has made with each parameter; it lists them group by group."""
    exempt = re.compile("bn|ln|bias|logit_scale")
    free = {name: tensor.ndim < 2 or bool(exempt.search(name)) for name, tensor in saved["state_dict"].items()}
    names = [name for name in free if free[name]] + [name for name in free if not free[name]]
    numbers = [number for group in saved["optimizer"]["param_groups"] for number in group["params"]]
    state = saved["optimizer"]["state"]
    return {name: int(state[number]["step"]) for name, number in zip(names, numbers, strict=True)}


def test_equals_open_clips_own_distillation_step_by_step(folder):
    # A larger eps: where a gradient is zero but for rounding, Adam would make a whole step of that.
    more = ("--epochs", 2, "--eps", 1e-3, "--grad-clip-norm", 1)
    with runs.totals() as theirs:
        runs.stock(arguments(folder, "stock", *more))
    with runs.totals() as mine:
        assert ours(folder, arguments(folder, "same", *more), {"weights": EXACT}) == 0
    assert len(mine) == 2 * runs.PAIRS // runs.BATCH
    torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=0)
    end, expected = (checkpoint(folder, name, 2)["state_dict"] for name in ("same", "stock"))
    assert list(end) == list(expected)
    torch.testing.assert_close(end, expected, rtol=1e-5, atol=1e-6)
    start = open_clip.create_model(NARROW).state_dict()
    assert not torch.allclose(end["text_projection"], start["text_projection"], atol=1e-3)
    terms = re.findall(r"(Contrastive_loss|Distill_loss|Affinity_loss): (\S+)", runs.log(folder, "same"))
    assert terms == [
        (name.replace("Distill", "Affinity"), value)
        for name, value in re.findall(r"(Contrastive_loss|Distill_loss): (\S+)", runs.log(folder, "stock"))
    ]


@pytest.mark.parametrize("weights", [WEIGHTS, {"siglip": 1, "sigmoid_kd": 1}], ids=["clip", "siglip"])
def test_accumulated_gradients_are_those_of_the_whole_batch(folder, weights):
    """In float64, through the trainer's own loop: the student's, its scale's and bias's, and the loss's own."""
    whole, asked_whole = gradients_of_a_step(weights, accumulate=1)
    parts, asked_parts = gradients_of_a_step(weights, accumulate=2)
    assert whole.keys() == parts.keys()
    assert len(whole) > 20
    torch.testing.assert_close(parts, whole, rtol=1e-9, atol=1e-12)
    assert (asked_whole, asked_parts) == (1, 2)


def gradients_of_a_step(weights: dict[str, float], accumulate: int) -> tuple[dict[str, torch.Tensor], int]:
    """Of eight pairs, and how often the teacher was run for them."""
    torch.manual_seed(3)
    bias = {"init_logit_bias": -2.0} if "siglip" in weights else {}
    student, teacher = (open_clip.create_model(name, output_dict=True, **bias).double() for name in (NARROW, WIDE))
    loss = kdlosses.CLIPKDLoss(weights, student_dim=12, teacher_dim=20).double()
    attach_loss(student, loss)
    runs_of_teacher: list[int] = []
    teacher.register_forward_hook(lambda *_: runs_of_teacher.append(1))
    beside = Teacher(teacher, accumulate)
    student.register_forward_hook(beside.answer, with_kwargs=True)
    images, texts = torch.randn(8, 3, 16, 16).double(), torch.randint(1, 49000, (8, 8))
    batches = list(zip(images.chunk(accumulate), texts.chunk(accumulate), strict=True))
    loader = Batches(batches)
    optimizer = torch.optim.SGD(student.parameters(), lr=1e-9)
    args = Namespace(device="cpu", precision="fp32", distill=False, accum_freq=accumulate, skip_scheduler=True)
    args.__dict__ |= {"grad_clip_norm": None, "rank": 0, "world_size": 1, "log_every_n_steps": 1, "batch_size": 4}
    args.wandb = False
    data = {"train": SimpleNamespace(dataloader=loader, set_epoch=lambda epoch: None)}
    objective = Objective(loss, beside, accumulate)
    runs.loop.train_one_epoch(student, data, objective, 0, optimizer, None, None, None, args)
    assert not beside._kept
    return {name: parameter.grad for name, parameter in student.named_parameters()}, len(runs_of_teacher)


def test_the_losses_scales_are_clamped_before_each_step(folder):
    loss = kdlosses.ICLLoss()
    loss.cross_logit_scale.data.fill_(9.0)
    teacher = Teacher(open_clip.create_model(NARROW, output_dict=True), 1)
    features = [torch.randn(4, 12, requires_grad=True) for _ in range(2)]
    Objective(loss, teacher, 1)(
        *features, torch.tensor(1.0), dist_image_features=features[0], dist_text_features=features[1]
    )
    assert loss.cross_logit_scale.item() <= 4.6052


@pytest.mark.parametrize("bias", [-10.0, None])
def test_the_loss_gets_the_teachers_own_scale_and_bias(bias):
    """As the teacher's last output had them, and the student's, of two models that differ in both."""
    inputs = Problem(student_dim=4, teacher_dim=4).inputs()
    teacher = SimpleNamespace(scale=torch.tensor(30.0), bias=None if bias is None else torch.tensor(bias))
    loss = kdlosses.CLIPKDLoss({"crd": 1} if bias is None else {"sigmoid_kd": 1, "crd": 1})
    named = {key: value for key, value in inputs.items() if not key.startswith("dist_logit")}
    found = Objective(loss, teacher, 1)(**named)
    numbers = {"dist_logit_scale": teacher.scale, "dist_logit_bias": teacher.bias}
    torch.testing.assert_close(found, loss(**named, **numbers, output_dict=True), rtol=0, atol=0)


def test_the_teacher_is_frozen_whatever_the_student_does(folder):
    student, model = (open_clip.create_model(NARROW, output_dict=True) for _ in range(2))
    teacher = Teacher(model.train(), 1)
    student.register_forward_hook(teacher.answer, with_kwargs=True)
    images, texts = torch.randn(2, 3, 16, 16), torch.ones(2, 8, dtype=torch.long)
    output = student.train()(images, texts)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not output["dist_image_features"].requires_grad
    assert set(output) - set(student.eval()(images, texts)) == {"dist_image_features", "dist_text_features"}
    assert set(student(image=images)) == {"image_features", "text_features", "logit_scale"}  # as in its zero-shot test


def test_the_teacher_remembers_each_micro_batch_by_its_images():
    """Not by their order: of an epoch's last, incomplete step some were never asked for again."""

    def model(images, texts):
        return {"image_features": images * 2, "text_features": texts * 2, "logit_scale": torch.tensor(10.0)}

    teacher = Teacher(_Callable(model), 2)
    first, second = torch.ones(2, 3), torch.ones(2, 3) * 5
    student = SimpleNamespace(training=True)
    with torch.no_grad():
        for images in (first, second):
            teacher.answer(student, (images, images), {}, {})
    for images in (second, first):
        found = teacher.answer(student, (images, images), {}, {})
        assert torch.equal(found["dist_image_features"], images * 2)


class _Callable(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.forward = function


class Batches(list):
    """A data loader, as the trainer knows one."""

    num_samples = 8

    @property
    def num_batches(self) -> int:
        return len(self)


SETTINGS = {
    "webdataset": (lambda folder: (*shards(folder), "--dataset-resampled"), None),
    "bfloat16, accumulated": (lambda folder: ("--precision", "amp_bf16", "--accum-freq", 2), None),
    # The scaler begins with scales at which gradients overflow, and no step is taken until it has found another.
    "float16, clipped": (lambda folder: ("--precision", "amp", "--grad-clip-norm", 1, "--epochs", 8), None),
    "pure bfloat16": (lambda folder: ("--precision", "pure_bf16"), None),
    "timm optimizer, locked": (lambda folder: ("--opt", "timm/adamw", "--eps", 1e-8, "--lock-image"), None),
    "siglip": (
        lambda folder: ("--siglip", "--distill-model", "kd-test-sigmoid"),
        {"weights": {"siglip": 1, "sigmoid_kd": 1, "icl": 1}},
    ),
    "resized": (
        lambda folder: ("--distill-model", "kd-test-large", "--force-image-size", 24),
        {"weights": WEIGHTS, "backend": "chunked", "backend_options": {"chunk_size": 3}, "check": True},
    ),
    "checkpointed": (lambda folder: ("--grad-checkpointing",), {"weights": WEIGHTS, "backend": "chunked"}),
}
SLOW_SETTINGS = {"float16, clipped", "pure bfloat16", "timm optimizer, locked", "checkpointed"}


@pytest.mark.parametrize("name", tiers(SETTINGS, {*SETTINGS} - SLOW_SETTINGS))
def test_other_settings_of_the_trainer(folder, name):
    more, settings = SETTINGS[name]
    with runs.totals() as values:
        assert ours(folder, arguments(folder, name, *more(folder)), settings) == 0
    assert len(values) == (16 if "--epochs" in more(folder) else 2)
    assert all(torch.isfinite(torch.tensor(values)))
    state = checkpoint(folder, name)
    assert [key for key in state["state_dict"] if key.startswith("kd_loss.")] == LOSS_NAMES


@pytest.mark.slow
def test_compiled_it_asks_the_teacher_once_a_batch(folder, monkeypatch):
    compiled = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model: compiled(model, backend="eager"))  # inductor takes a minute
    asked: list[int] = []
    features = Teacher._features
    monkeypatch.setattr(Teacher, "_features", lambda *args: [asked.append(1), features(*args)][1])
    with runs.totals() as values:
        assert ours(folder, arguments(folder, "compiled", "--torchcompile")) == 0
    with runs.totals() as expected:
        assert ours(folder, arguments(folder, "not compiled")) == 0
    assert len(asked) == 2 * len(values)
    torch.testing.assert_close(values, expected, rtol=1e-5, atol=0)


def test_without_a_teacher(folder):
    with runs.totals() as mine:
        assert ours(folder, arguments(folder, "alone", teacher=None), {"weights": {"contrastive": 1}}) == 0
    with runs.totals() as theirs:
        runs.stock(arguments(folder, "stock-alone", teacher=None))
    torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=0)


REFUSED = {
    "no --kd-config-config": (None, (), "--kd-config is missing: name a YAML file"),
    "broken YAML": ("weights: {crd: 1", (), "is not YAML: while parsing"),
    "empty": ("", (), "expected 'weights:"),
    "no UTF-8": (b"weights:\n  crd: 1 # \xff", (), "refused.yaml, line 2, is not YAML: it is not UTF-8 text"),
    "a key twice": (
        "weights: {crd: 1}\nweights: {fd: 1}",
        (),
        r"refused.yaml, line 2, is not YAML: the key weights is written twice \(first in line 1\)$",
    ),
    "a term twice": ("weights: {crd: 1, fd: 1, crd: 2}", (), "the key crd is written twice"),
    "nested without end": ("[" * 100, (), "line 1, is not YAML: lists and mappings are nested deeper than 64 levels$"),
    "alias": ("weights: &w {crd: 1}\noptions: *w", (), "line 2, is not YAML: aliases"),
    "unknown tag": ("weights: !!python/name:os.system", (), "line 1, is not YAML: the tag !!python/name:os.system is"),
    "no number": ("weights: {crd: 1}\ncheck: yes", (), "line 2: check must be true or false, got 'yes'"),
    "unknown key": ("weigths: {crd: 1}", (), "line 1: key 'weigths' is unknown; known: .* did you mean 'weights'?"),
    "unknown term": ("weights: {cdr: 1}", (), "loss term 'cdr' is unknown; .* did you mean 'crd'?"),
    "bad weight": ("weights: {crd: much}", (), "weight of 'crd' must be a finite number >= 0, got 'much'"),
    "bad backend": ("backend: tritn", (), "'tritn' is unknown; known backends: auto"),
    "bad option": ("{backend: chunked, backend_options: {chunk: 1}}", (), "chunk"),
    "mfd": ("weights: {mfd: 1}", (), "mfd reads .*embeddings of masked images"),
    "no teacher": (
        "weights: {crd: 1}",
        ("--distill-model",),
        r"-model is missing: the loss reads a teacher \(crd\);",
    ),
    "coca": ("weights: {crd: 1}", ("--model", "coca_ViT-B-32"), "coca_ViT-B-32 is a CoCa model"),
    "unknown model": ("weights: {crd: 1}", ("--model", "ViT-X"), "open_clip knows no model ViT-X"),
    "trace": ("weights: {crd: 1}", ("--trace",), "--trace cannot be used here"),
    "torchscript": ("weights: {crd: 1}", ("--torchscript",), "--torchscript cannot be used here"),
    "horovod": ("weights: {crd: 1}", ("--horovod",), "--horovod cannot be used here"),
    "bnb": ("weights: {crd: 1}", ("--use-bnb-linear", "x"), "--use-bnb-linear cannot be used here"),
    "no bias": (
        "weights: {siglip: 1}",
        (),
        r"the loss reads the student's bias \(siglip\), and it has none; add --siglip",
    ),
    "teacher's bias": (
        "weights: {sigmoid_kd: 1}",
        ("--siglip",),
        r"teacher's bias \(sigmoid_kd\), and it has none",
    ),
    "image size": (
        "weights: {crd: 1}",
        ("--distill-model", "kd-test-large"),
        r"kd-test-large cannot read .*: image size 24 instead of 16 \(--force-image-size 24\)$",
    ),
    "tokens": (
        "weights: {crd: 1}",
        ("--distill-model", "kd-test-long"),
        r": 9 tokens instead of 8 \(--force-context-length 9\)$",
    ),
    "normalisation": ("weights: {crd: 1}", ("--image-mean", 0.5, 0.5, 0.5), r"mean 0.48.* \(--image-mean 0.48"),
    "tokenizer": ("weights: {crd: 1}", ("--distill-model", "kd-test-tokens"), ": another tokenizer$"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_one_sentence(folder, case, capsys):
    kd, more, message = REFUSED[case]
    teacher = None if more == ("--distill-model",) else WIDE
    argv = arguments(folder, f"refused {case}", *(() if teacher is None else more), teacher=teacher)
    if "--distill-model" in more and teacher:
        argv += ["--distill-pretrained", str(folder / f"{more[1]}.pt")]
    (folder / "refused.yaml").write_bytes(kd if isinstance(kd, bytes) else (kd or "").encode())
    with runs.unlogged():
        assert main([*(() if kd is None else ("--kd-config", str(folder / "refused.yaml"))), *argv]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert re.search(message, line)


NO_STUDENT = {
    "no batch": (("--batch-size", 64), "no step was taken, so no student was written: a step takes 64 pairs"),
    "no step's worth of batches": (("--accum-freq", 3), "no step was taken, .* a step takes 24 pairs"),
    "diverged": (("--lr", 1e30), "no student was written, as what was trained has NaN or infinity in "),
}
SLOW = [*NO_STUDENT][1:]


@pytest.mark.parametrize("case", ["no batch", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_what_was_not_trained_is_not_handed_over(folder, case, capsys):
    more, message = NO_STUDENT[case]
    assert ours(folder, arguments(folder, case, *more)) == 2
    assert re.search(f"^error: {message}", capsys.readouterr().err, re.M)
    assert not (folder / "logs" / case / "student.pt").exists()


def spoiled(path: Path, out: Path, how: str) -> Path:
    """A copy of a checkpoint with one flipped bit of a tensor, or with a NaN."""
    if how == "a flipped bit":
        content = bytearray(path.read_bytes())
        with zipfile.ZipFile(path) as archive:
            record = max(archive.infolist(), key=lambda entry: entry.file_size)
        content[record.header_offset + 1000] ^= 1
        out.write_bytes(content)
    else:
        content = torch.load(path, weights_only=True)
        next(iter(content.get("state_dict", content).values())).view(-1)[0] = float("nan")
        torch.save(content, out)
    return out


@pytest.mark.parametrize(
    ("how", "words"), [("a flipped bit", r"is damaged: its record \S+ does not"), ("a NaN", "has NaN or infinity in ")]
)
class TestSpoiledWeights:
    def test_of_a_teacher(self, folder, tmp_path, capsys, how, words):
        path = spoiled(folder / f"{WIDE}.pt", tmp_path / "in.pt", how)
        argv = arguments(folder, f"taught by {how}", "--distill-pretrained", path)
        assert ours(folder, argv) == 2
        assert re.search(f"^error: {path} {words}", capsys.readouterr().err, re.M)

    def test_of_a_checkpoint_to_resume_from(self, watched, tmp_path, capsys, how, words):
        path = spoiled(watched.folder / "logs/watched/checkpoints/epoch_1.pt", tmp_path / "in.pt", how)
        argv = arguments(watched.folder, f"resumed from {how}", "--epochs", 2, "--resume", path)
        assert ours(watched.folder, argv) == 2
        assert re.search(f"^error: --resume: {path} {words}", capsys.readouterr().err, re.M)

    def test_of_one_to_export(self, watched, tmp_path, capsys, how, words):
        path = spoiled(watched.folder / "logs/watched/checkpoints/epoch_1.pt", tmp_path / "in.pt", how)
        assert main(["--export", str(path), str(tmp_path / "out.pt")]) == 2
        assert re.search(f"^error: --export: .*{path} {words}", capsys.readouterr().err, re.M)
        assert not (tmp_path / "out.pt").exists()


DOCUMENTS = [
    "a: 1\nb: [1, 2.5, 2e3, .5, 010, 1_000, -.inf, ~, no, yes, True, 1:30, 2020-01-01, '7', text]",
    "a: {b: {c: 1}, d: 2}\ne: !!str 5\nf: ''",
    "",
    "5",
    "a: 1\na: 2",
    "a: {b: 1, b: 2}",
    "1: 2",
    "a: &x 1\nb: *x",
    "[" * 64 + "]" * 64,
    "[" * 65 + "]" * 65,
    "a: 99999999999999999999",
    "a: 1e999",
    "a: !!int 1.5",
    "a: !!set {x}",
    "a: !mine 5",
    "a: 1\n--- \nb: 2",
]


@pytest.mark.parametrize("text", DOCUMENTS)
def test_the_file_is_read_as_a_recipe_is(text):
    """The rules stand in two places, as kdlosses imports nothing of harness and recipes are read without torch."""
    found = []
    for read in (strict_yaml.parse, lambda content: yamltext.parse(content, "")):
        try:
            found.append(repr(read(text.encode()).values))
        except yaml.YAMLError:
            found.append("refused")
    assert found[0] == found[1]


def test_another_name_of_the_same_tokenizer_is_none(folder):
    argv = arguments(folder, "lower", "--distill-model", "kd-test-lower", "--lr", 0)
    argv += ["--distill-pretrained", str(folder / "kd-test-lower.pt")]
    assert ours(folder, argv) == 0


class TestExport:
    def test_of_a_checkpoint(self, watched, tmp_path, capsys):
        path = watched.folder / "logs" / "watched" / "checkpoints" / "epoch_2.pt"
        assert main(["--export", str(path), str(tmp_path / "out.pt")]) == 0
        assert "load it with open_clip.create_model(" in capsys.readouterr().out
        exported = torch.load(tmp_path / "out.pt", weights_only=True)
        automatic = torch.load(watched.folder / "logs" / "watched" / "student.pt", weights_only=True)
        assert list(exported) == list(automatic)
        assert all(torch.equal(value, automatic[name]) for name, value in exported.items())
        assert [entry.name for entry in tmp_path.iterdir()] == ["out.pt"]

    @pytest.mark.parametrize("content", ["missing", "text", "no model"])
    def test_of_no_checkpoint(self, tmp_path, capsys, content):
        path = tmp_path / "in.pt"
        if content == "text":
            path.write_text("hello")
        elif content == "no model":
            torch.save({"epoch": 1}, path)
        assert main(["--export", str(path), str(tmp_path / "out.pt")]) == 2
        assert "error: --export: " in capsys.readouterr().err
        assert not (tmp_path / "out.pt").exists()

    def test_into_no_folder(self, watched, tmp_path, capsys):
        path = watched.folder / "logs" / "watched" / "checkpoints" / "epoch_2.pt"
        assert main(["--export", str(path), str(tmp_path / "none" / "out.pt")]) == 2
        assert re.search(r"error: --export: there is no folder \S+none; make it first", capsys.readouterr().err)

    def test_takes_nothing_else(self, capsys):
        assert main(["--export", "a", "b", "--model", "c"]) == 2
        assert "nothing else; got --model c" in capsys.readouterr().err


def test_home_folders_are_expanded(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(["--export", "~/none.pt", "~/out.pt"]) == 2
    assert main(["--kd-config=~/none.yaml"]) == 2
    said = capsys.readouterr().err
    assert f"{tmp_path}/none.pt" in said and f"{tmp_path}/none.yaml" in said
    assert expand_argument("--train-data=~/a.csv") == f"--train-data={tmp_path}/a.csv"
    assert expand_argument("~/a.csv") == f"{tmp_path}/a.csv"
    assert expand_argument("--lr=1e-3") == "--lr=1e-3" and expand_argument("a=~/b") == "a=~/b"


def test_the_pages_file_is_one(tmp_path):
    (block,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/integrations/open_clip.md").read_text(), flags=re.S)
    (tmp_path / "kd.yaml").write_text(block)
    settings = read_settings(str(tmp_path / "kd.yaml"))
    assert set(settings.values) == set(KEYS)
    assert settings.build(384, 512).weights == {"contrastive": 1, "crd": 1, "fd": 2000, "icl": 1}


@pytest.mark.distributed
@pytest.mark.slow
def test_the_example_runs(folder, tmp_path):
    models = {}
    for name in (NARROW, WIDE):
        models[name] = tmp_path / name
        models[name].mkdir()
        (models[name] / "open_clip_config.json").write_text(json.dumps({"model_cfg": MODELS[name]}))
    shutil.copy(folder / f"{WIDE}.pt", models[WIDE] / "model.pth")
    given = ["--model", f"local-dir:{models[NARROW]}", "--distill-model", f"local-dir:{models[WIDE]}", *shards(folder)]
    given += ["--batch-size", 8, "--epochs", 1, "--device", "cpu", "--workers", 0, "--precision", "fp32"]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    run = subprocess.run(
        ["bash", ROOT / "examples/open_clip/run.sh", *map(str, given), "--logs", tmp_path],
        env={**os.environ, "PATH": path, "GPUS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    assert "Train Epoch: 0" in run.stderr
    model = open_clip.create_model(NARROW, pretrained=str(tmp_path / "vit-s-16-clip-kd" / "student.pt"))
    assert model.state_dict()


def test_a_trainer_that_is_no_longer_so(monkeypatch, folder, capsys):
    monkeypatch.delattr(runs.trainer, "create_loss")
    assert ours(folder, arguments(folder, "newer")) == 2
    assert "open_clip_train.main has no create_loss: this works with open_clip_torch>=3.3,<4" in capsys.readouterr().err


def test_without_open_clips_trainer(monkeypatch, folder, capsys):
    monkeypatch.setitem(sys.modules, "open_clip_train.main", None)
    assert ours(folder, arguments(folder, "absent")) == 2
    assert "install it with pip install '.[open-clip]' in a checkout of kdlosses" in capsys.readouterr().err


def test_the_trainer_gets_its_names_back_after_an_error(folder):
    before = {name: getattr(runs.trainer, name) for name in NAMES}
    with pytest.raises(FileNotFoundError):
        ours(folder, arguments(folder, "lost", "--train-data", folder / "nowhere.csv"))
    assert all(getattr(runs.trainer, name) is function for name, function in before.items())


def test_a_refusal_is_a_value_error():
    assert issubclass(ConfigError, ValueError)
    assert logging.getLogger("kdlosses").level in (logging.NOTSET, logging.INFO)
