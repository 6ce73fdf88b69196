"""Two real steps of a recipe at full model size on random pairs, export, reload, evaluation of one batch."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import open_clip
import torch

from harness.config import EvalSet, Recipe
from harness.errors import UserError
from harness.evaluate import evaluate
from harness.export import export_model
from harness.metrics import read_metrics
from harness.models import LoadedModel
from harness.train.trainer import Trainer

STEPS = 2


@dataclass
class Trial:
    """What was built and what came out.

    Attributes:
        student: its parameters: image, text, total.
        teachers: each one's, likewise.
        loss_parameters: how many the loss has of its own.
        losses: of the last step, weighted.
        step_seconds: of a step here, on the CPU.
        metrics: of the exported model on random pairs, in percent, which means nothing beyond that it can be done.
    """

    student: dict[str, int]
    teachers: list[dict[str, int]]
    loss_parameters: int
    losses: dict[str, float]
    step_seconds: float
    metrics: dict[str, dict[str, float]]


def small(recipe: Recipe, batch_size: int) -> Recipe:
    """The recipe with everything of its models and loss, and of all else what two steps on a CPU need."""
    values = recipe.model_dump(mode="json")
    values["data"] |= {"train": [f"synthetic:{batch_size}"], "root": None, "workers": 0, "cache": "none"}
    values["teacher_cache"] = {"use": False}
    values["schedule"] |= {"warmup_steps": 0}
    values["train"] |= {
        "batch_size": batch_size,
        "steps": STEPS,
        "epochs": None,
        "accum_freq": 1,
        "parallel": "ddp",
        "precision": "fp32",
        "device": "cpu",
        "compile": False,
        "log_every": 1,
        "save_every": None,
        "on_nonfinite": "stop",
    }
    values["eval"] = {}
    for section in (values["student"], values["teacher"], *values["teachers"]):
        if section is not None:
            section["pretrained"] = None  # random weights do, and need no download
            for tower, key in (("vision_cfg", "timm_model_pretrained"), ("text_cfg", "hf_model_pretrained")):
                if section["config"] and tower in section["config"]:
                    section["config"] = {**section["config"], tower: {**section["config"][tower], key: False}}
    return Recipe.model_validate(values)


def try_out(recipe: Recipe, teachers: Sequence[LoadedModel], out: Path) -> tuple[Trial, LoadedModel]:
    """Train two steps, export, reload and evaluate; the student is returned too.

    Args:
        recipe: as `small` makes it.
        teachers: its teachers, built.
        out: an empty folder.

    Raises:
        UserError: for what the recipe's author can fix, and where a step did not do what a step has to.
    """
    trainer = Trainer(recipe, out, torch.device("cpu"), teachers=teachers)
    student = trainer.models.student
    before = {name: p.detach().clone() for name, p in trainer.task.trainable()}
    with contextlib.redirect_stdout(io.StringIO()):  # the run's own progress
        trainer.run()
    _check_learnt(trainer, before)
    last = read_metrics(out / "metrics.jsonl")[-1]
    export_model(student, out / "export")
    _check_reload(student, out / "export", recipe.train.batch_size)
    sets = [
        EvalSet(name=kind, kind=kind, path=f"synthetic:{recipe.train.batch_size}") for kind in ("zeroshot", "retrieval")
    ]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "y_pred contains classes not in y_true")  # so few images lack some classes
        metrics = evaluate(student, sets, batch_size=recipe.train.batch_size, device="cpu", out=out / "eval")
    trial = Trial(
        student=student.parameters,
        teachers=[teacher.parameters for teacher in teachers],
        loss_parameters=sum(p.numel() for p in trainer.task.loss.parameters()),
        losses={name: value for name, value in last.items() if name.endswith("_loss") or name == "loss"},
        step_seconds=trainer.metrics.seconds / STEPS,
        metrics=metrics,
    )
    return trial, student


def _check_learnt(trainer: Trainer, before: dict[str, torch.Tensor]) -> None:
    """Every parameter got a gradient, is finite, and the weights as a whole have moved."""
    after = trainer.task.trainable()
    idle = [name for name, p in after if p.grad is None]
    if idle:
        raise UserError(f"{len(idle)} trainable parameters got no gradient, such as {idle[0]}")
    broken = next((name for name, p in after if not p.isfinite().all()), None)
    if broken is not None:
        raise UserError(f"{broken} is not finite after {STEPS} steps")
    for owner in ("student.", "loss."):
        own = [(name, p) for name, p in after if name.startswith(owner)]
        if own and all(torch.equal(p, before[name]) for name, p in own):
            raise UserError(f"{STEPS} steps changed no parameter of {owner.rstrip('.')}")


@torch.no_grad()
def _check_reload(student: LoadedModel, export: Path, count: int) -> None:
    """Stock open_clip, which knows nothing of us, loads the export to the same embeddings."""
    again, _, _ = open_clip.create_model_and_transforms(f"local-dir:{export}", output_dict=True)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(count, 3, student.image_size, student.image_size, generator=generator)
    tokens = student.tokenizer(["a photo of a cat"] * count)
    training = student.model.training
    ours, theirs = student.model.eval()(images, tokens), again.eval()(images, tokens)
    student.model.train(training)
    for name in ("image_features", "text_features"):
        if not torch.allclose(ours[name], theirs[name], atol=1e-5):
            raise UserError(f"stock open_clip's {name} of the export differ from the student's")
