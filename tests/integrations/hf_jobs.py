"""Trainings that two processes and one must agree on; run by torchrun as a script, and by a test as a module.

All in float64, so that what differs is more than rounding.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import TrainingArguments

import kdlosses
from kdlosses.integrations.hugging_face import CLIPDistillationTrainer, distillation_loss
from tests.integrations.hf_models import Pairs, clip, seeded, siglip

BATCH = 16  # pairs in a step, whatever the number of processes
WORLD, RANK = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
EVALUATED = 20  # pairs: the second batch is not full
Result = dict[str, Any]


def _models(make: Callable[..., nn.Module]) -> tuple[nn.Module, nn.Module, nn.Module]:
    """Student, teacher and loss; on the second process the loss begins elsewhere, as from another seed."""
    student, teacher = seeded(make, 16).double(), seeded(clip, 24, seed=1).double().eval()
    weights = {"contrastive": 1, "crd": 1, "fd": 10, "icl": 1}
    loss = seeded(kdlosses.CLIPKDLoss, weights, student_dim=16, teacher_dim=24).double()
    with torch.no_grad():
        for parameter in loss.parameters():
            parameter.add_(0.3 * RANK)
    return student, teacher, loss


def _state(student: nn.Module, loss: nn.Module) -> dict[str, Tensor]:
    named = [*student.named_parameters(), *((f"loss.{name}", p) for name, p in loss.named_parameters())]
    return {name: parameter.detach().clone() for name, parameter in named}


def _trained(folder: Path, make: Callable[..., nn.Module], resume: str | None = None, **changes: Any) -> Result:
    student, teacher, loss = _models(make)
    arguments = TrainingArguments(
        str(folder),
        use_cpu=True,
        ddp_backend="gloo" if WORLD > 1 else None,
        report_to=[],
        disable_tqdm=True,
        per_device_train_batch_size=BATCH // WORLD,
        per_device_eval_batch_size=BATCH // WORLD,
        dataloader_drop_last=False,
        logging_steps=1,
        **{"max_steps": 3, "save_strategy": "no", "learning_rate": 1e-2, **changes},
    )
    data = {"train_dataset": Pairs(64, torch.float64), "eval_dataset": Pairs(EVALUATED, torch.float64)}
    trainer = CLIPDistillationTrainer(student, arguments, teacher=teacher, loss=loss, **data)
    trainer.train(resume_from_checkpoint=resume)
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    found: Result = {"state": _state(student, loss), "logs": logs}
    found["even"] = trainer.evaluate(Pairs(2 * BATCH, torch.float64))
    found["uneven"] = trainer.evaluate()
    return found


def _adamw(folder: Path) -> Result:
    return _trained(folder, clip, gradient_accumulation_steps=2, weight_decay=0.1, max_grad_norm=0.5)


def _sgd(folder: Path) -> Result:
    """A student whose logit bias no term reads: DDP must not wait for its gradient."""
    return _trained(folder, siglip, optim="sgd")


def _checkpointing(folder: Path) -> Result:
    """With gradient checkpointing the Trainer has DDP look for no unused parameters."""
    return _trained(folder, clip, gradient_checkpointing=True)


def _resumed(folder: Path) -> Result:
    """As `_adamw`, from a checkpoint after its second step."""
    settings = {"gradient_accumulation_steps": 2, "weight_decay": 0.1, "max_grad_norm": 0.5}
    _trained(folder, clip, save_strategy="steps", save_steps=2, **settings)
    return _trained(folder, clip, resume=str(folder / "checkpoint-2"), **settings)


def _own_loop(folder: Path) -> Result:
    """A loop of one's own with accelerate: student and loss are prepared, each in a DDP of its own."""
    student, teacher, loss = _models(clip)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    optimizer = torch.optim.AdamW([*student.parameters(), *loss.parameters()], lr=1e-2)
    data = DataLoader(Pairs(64, torch.float64), batch_size=BATCH // WORLD)
    student, loss, optimizer, data = accelerator.prepare(student, loss, optimizer, data)

    def step(batch: dict[str, Tensor]) -> None:
        with accelerator.accumulate(student, loss):
            terms = distillation_loss(student, teacher, loss, batch)
            accelerator.backward(sum(terms.values()))
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_([*student.parameters(), *loss.parameters()], 0.5)
            optimizer.step()
            optimizer.zero_grad()
            accelerator.unwrap_model(loss).clamp_scales()

    rest = []
    for number, batch in enumerate(data):
        step(batch)
        if number == 1:
            accelerator.save_state(str(folder))
        elif number > 1:
            rest.append(batch)
    trained = accelerator.unwrap_model(student), accelerator.unwrap_model(loss)
    found = _state(*trained)
    accelerator.load_state(str(folder))
    for batch in rest:
        step(batch)
    return {"state": found, "again": _state(*trained)}


JOBS = {"adamw": _adamw, "sgd": _sgd, "checkpointing": _checkpointing, "resumed": _resumed, "own loop": _own_loop}


def carry_out(folder: Path) -> dict[str, Result]:
    """What every job gives on this process."""
    results = {}
    for name, job in JOBS.items():
        AcceleratorState._reset_state()
        with warnings.catch_warnings():
            warnings.simplefilter("error", kdlosses.UntrainedParametersWarning)
            results[name] = job(folder / name.replace(" ", "-"))
    return results


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.save(carry_out(Path(sys.argv[1]) / "runs"), Path(sys.argv[1]) / f"{RANK}.pt")
    torch.distributed.barrier()  # all leave together: else gloo may abort at the exit
    torch.distributed.destroy_process_group()
