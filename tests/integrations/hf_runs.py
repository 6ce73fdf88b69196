"""`CLIPDistillationTrainer` on tiny models and data, with the settings that its tests share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState, GradientState
from torch import Tensor, nn
from transformers import TrainingArguments

import kdlosses
from kdlosses.integrations.hugging_face import CLIPDistillationTrainer
from tests.integrations.hf_models import Pairs, seeded

WEIGHTS = {"contrastive": 1, "crd": 1, "fd": 10, "icl": 1}
State = dict[str, Tensor]


def arguments(folder: Path, **changes: Any) -> TrainingArguments:
    # They remember the last Trainer's precision, and its data where it stopped with an error.
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    quiet = {"report_to": [], "disable_tqdm": True, "save_strategy": "no", "use_cpu": True}
    sizes = {"per_device_train_batch_size": 8, "per_device_eval_batch_size": 8, "max_steps": 4, "logging_steps": 2}
    return TrainingArguments(str(folder), **{**quiet, **sizes, "learning_rate": 1e-2, **changes})


def loss_for(student: nn.Module, teacher: nn.Module, **keywords: Any) -> nn.Module:
    widths = {"student_dim": 16, "teacher_dim": 24}
    return seeded(kdlosses.CLIPKDLoss, **{"weights": WEIGHTS, **widths, **keywords}).to(next(student.parameters()))


def trainer(
    folder: Path, student: nn.Module, teacher: nn.Module, loss: nn.Module | None = None, **changes: Any
) -> CLIPDistillationTrainer:
    """With 32 pairs to train on and 20 to evaluate on, in the student's dtype."""
    dtype = next(student.parameters()).dtype
    sets = {"train_dataset": Pairs(32, dtype), "eval_dataset": Pairs(20, dtype)}
    sets |= {name: changes.pop(name) for name in [*sets, "model_init", "optimizers"] if name in changes}
    loss = loss or loss_for(student, teacher)
    return CLIPDistillationTrainer(student, arguments(folder, **changes), teacher=teacher, loss=loss, **sets)


def double(make: Any, width: int = 16, seed: int = 0) -> nn.Module:
    return seeded(make, width, seed=seed).double()


def everything(run: CLIPDistillationTrainer) -> State:
    """Copies of all that was trained."""
    parts = {"student": run.model, "loss": run.loss}
    return {f"{part}.{name}": p.detach().clone() for part, of in parts.items() for name, p in of.named_parameters()}


def assert_same(found: State, wanted: State, **bounds: float) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, msg=lambda text, name=name: f"{name}: {text}", **bounds)
