"""The README's loop as it is, and with the lines that users change for autocast, GradScaler, torch.compile and DDP."""

from __future__ import annotations

import re
from textwrap import indent
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import kdlosses
from kdlosses.integrations.model_adapters import bare_model
from tests.integrations.scripts import ROOT, blocks

PAGE = "docs/quickstart.md"  # the README's loop, and the table of what changes in it
QUICKSTART = (ROOT / PAGE).read_text(encoding="utf-8")

MODELS = """    with torch.no_grad():
        teacher_outputs = teacher(images, texts)  # image features, text features, logit scale
    losses = loss(*student(images, texts), *teacher_outputs, output_dict=True)  # {"crd_loss": ..., ...}
"""
BACKWARD = "    sum(losses.values()).backward()\n"
STEP = "    optimizer.step()\n"
OPTIMIZER = "optimizer = "
MOMENTS = ("exp_avg", "exp_avg_sq")


def told(row: str) -> list[str]:
    """The code in that row of the page's table."""
    (cell,) = re.findall(rf"^\| `?{row}`? \| (.*) \|$", QUICKSTART, flags=re.M)
    return re.findall(r"`(.*?)`", cell)


def changes() -> dict[str, dict[str, str]]:
    """By name: what of the loop is replaced, and by what the page says."""
    context = told("autocast")[0].replace('"cuda"', '"cpu"')
    backward, step, update = told("GradScaler")
    compiled = re.sub(r"compile\((\w+)\)", r'compile(\1, backend="eager")', told("torch.compile")[0])
    return {
        "autocast": {MODELS: f"    {context}\n" + indent(MODELS, "    ")},
        "scaler": {BACKWARD: f"    {backward}\n", STEP: f"    {step}\n    {update}\n"},
        "compile": {OPTIMIZER: f"{compiled}\n{OPTIMIZER}"},
        "ddp": {OPTIMIZER: f"{told('DDP')[0]}\n{OPTIMIZER}"},
    }


class Clip(nn.Module):
    """The least that a model in the example does."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.image, self.text = nn.Linear(8, width), nn.Linear(8, width)
        self.logit_scale = nn.Parameter(torch.tensor(2.66))

    def forward(self, images: Tensor, texts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.image(images), self.text(texts), self.logit_scale.exp()


def run(*names: str, rank: int = 0, size: int = 1) -> dict[str, Tensor]:
    """Parameters and AdamW's moments after four steps with these changes, on this process's share of each batch."""
    student, teacher = Clip(512), Clip(768)
    mine = slice(rank * 8 // size, (rank + 1) * 8 // size)
    scope: dict[str, Any] = {
        "student": student,
        "teacher": teacher,
        "batches": [(torch.randn(8, 8)[mine], torch.randn(8, 8)[mine]) for _ in range(4)],
        "scaler": torch.amp.GradScaler("cpu", init_scale=1024),
        "kdlosses": kdlosses,
        "DistributedDataParallel": DistributedDataParallel,
    }
    exec(compile(changed(*names), "README.md", "exec"), scope)
    modules = {"student": student, "loss": bare_model(scope["loss"])}
    found = {f"{key}.{name}": p for key, module in modules.items() for name, p in module.named_parameters()}
    state = scope["optimizer"].state
    moments = {
        f"{name} {moment}": state[p][moment] for name, p in found.items() for moment in ("exp_avg", "exp_avg_sq")
    }
    return {name: value.detach().clone() for name, value in (found | moments).items()}


def changed(*names: str) -> str:
    """The README's code with these changes, each of whose lines it has once."""
    (code,) = blocks(PAGE)
    for name in names:
        for old, new in changes()[name].items():
            assert len(re.findall(f"^{re.escape(old)}", code, flags=re.M)) == 1, f"no such line in the README: {old!r}"
            code = code.replace(old, new)
    return code
