"""The protocol of open_clip 4.x, which is not released yet: a task calls the loss with what both models give.

The stub does what DistillCLIPTask and its bases do on open_clip's main branch, as far as a loss can tell.
"""

from __future__ import annotations

import copy
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import kdlosses
from kdlosses.integrations.attach import attach_loss, without_loss

DIMS = {"student_dim": 6, "teacher_dim": 9}
# A sigmoid needs a bias, the others take one.
CASES = [(name, True) for name in kdlosses.available_losses(without_options=True)]
CASES += [
    (name, False) for name in kdlosses.available_losses(without_options=True) if name not in ("siglip", "sigmoid_kd")
]


class Towers(nn.Module):
    """A CLIP as open_clip's are seen from outside."""

    def __init__(self, width: int, biased: bool) -> None:
        super().__init__()
        self.visual, self.text = nn.Linear(5, width), nn.Embedding(11, width)
        self.logit_scale = nn.Parameter(torch.tensor(2.0))
        self.logit_bias = nn.Parameter(torch.tensor(-3.0)) if biased else None

    def forward(self, image: Tensor, text: Tensor) -> dict[str, Tensor]:
        features = {"image_features": self.visual(image), "text_features": self.text(text).sum(1)}
        output = {name: nn.functional.normalize(value, dim=-1) for name, value in features.items()}
        output["logit_scale"] = self.logit_scale.exp()
        if self.logit_bias is not None:
            output["logit_bias"] = self.logit_bias
        return output


class Task(nn.Module):
    """Student, frozen teacher and loss; the trainer optimizes, wraps and saves ``trainable_module`` alone."""

    def __init__(self, student: nn.Module, teacher: nn.Module, *, loss: nn.Module) -> None:
        super().__init__()
        self.trainable_module, self.teacher, self.loss = student, teacher.eval().requires_grad_(False), loss

    def make_scalars_vectors(self) -> None:
        """What FSDP2 needs before it can shard."""
        model = self.trainable_module
        for name, parameter in list(model.named_parameters()):
            if parameter.ndim == 0:
                parent, _, last = name.rpartition(".")
                setattr(model.get_submodule(parent), last, nn.Parameter(parameter.data.unsqueeze(0)))

    def training_forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        output = self.trainable_module(**batch)
        with torch.no_grad():
            taught = self.teacher(**batch)
        output.update({f"dist_{key}": value for key, value in taught.items()})
        losses = self.loss(**output, output_dict=True)
        losses["loss"] = sum(value for key, value in losses.items() if key.endswith("_loss"))
        return losses


def batch() -> dict[str, Tensor]:
    return {"image": torch.randn(4, 5), "text": torch.randint(0, 11, (4, 3))}


def make(name: str, biased: bool, **keywords: Any) -> Task:
    student, teacher = Towers(6, biased), Towers(9, biased)
    loss = kdlosses.build(name, **DIMS, **keywords)
    attach_loss(student, loss)
    return Task(student, teacher, loss=loss)


@pytest.mark.parametrize("vectors", [False, True], ids=["scalar", "vector"])
@pytest.mark.parametrize(("name", "biased"), CASES)
def test_every_loss_takes_a_step(name, biased, vectors):
    task = make(name, biased)
    if vectors:
        task.make_scalars_vectors()
    optimizer = torch.optim.AdamW(task.trainable_module.parameters(), lr=0.1)
    before = copy.deepcopy(task.loss.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("error", kdlosses.UntrainedParametersWarning)
        for _ in range(2):
            optimizer.zero_grad()
            losses = task.training_forward(batch())
            losses["loss"].backward()
            optimizer.step()
    assert losses["loss"].shape == ()
    assert all(key.endswith("_loss") or key == "loss" for key in losses)
    now = task.loss.state_dict()
    assert all(not torch.equal(value, now[key].reshape(value.shape)) for key, value in before.items())
    assert all(parameter.grad is None for parameter in task.teacher.parameters())


@pytest.mark.parametrize("name", kdlosses.available_losses(without_options=True))
def test_the_scales_shape_changes_nothing(name):
    values = []
    for vectors in (False, True):
        torch.manual_seed(2)
        task = make(name, biased=True)
        if vectors:
            task.make_scalars_vectors()
        task.training_forward(batch())["loss"].backward()
        values.append({key: p.grad for key, p in task.trainable_module.named_parameters() if p.grad is not None})
    assert values[0].keys() == values[1].keys()
    assert all(torch.equal(value, values[1][key].reshape(value.shape)) for key, value in values[0].items())


def test_checkpoint_and_average_have_the_losses_parameters_and_the_export_has_not():
    task = make("icl", biased=False)
    average = copy.deepcopy(task.trainable_module)  # as its EMA is made
    state = task.trainable_module.state_dict()
    own = {key for key in state if key.startswith("kd_loss.")}
    assert own == {f"kd_loss.{key}" for key in task.loss.state_dict()}
    assert own < average.state_dict().keys()
    Towers(6, biased=False).load_state_dict(without_loss(state))  # strict


def test_the_pages_lines_train_and_clamp():
    page = (Path(__file__).parents[2] / "docs/integrations/open_clip.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, flags=re.S)
    names = {"student": Towers(384, biased=False), "teacher": Towers(512, biased=False), "DistillCLIPTask": Task}
    exec(compile(code, "open_clip.md", "exec"), names)
    loss, task = names["loss"], names["task"]
    loss.cross_logit_scale.data.fill_(9.0)
    losses = task.training_forward(batch())
    assert loss.cross_logit_scale.item() <= 4.6052
    assert losses.keys() == {"contrastive_loss", "crd_loss", "fd_loss", "icl_loss", "loss"}
    assert kdlosses.parameter_report(loss, torch.optim.AdamW(task.trainable_module.parameters())).ok
