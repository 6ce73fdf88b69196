"""The README's example runs as written, and every loss stands where open_clip's stood."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import open_clip
import pytest
import torch
from torch import Tensor, nn

import kdlosses
from harness.config.keys import all_keys

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TRAINING = (ROOT / "docs/training.md").read_text(encoding="utf-8")
TABLES = 6


class Clip(nn.Module):
    """The least that a model in the example does: images and texts in, open_clip's three outputs out."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.image, self.text = nn.Linear(8, width), nn.Linear(8, width)
        self.logit_scale = nn.Parameter(torch.tensor(2.66))
        self.logit_bias = nn.Parameter(torch.tensor(-2.0))  # a SigLIP has one; softmax losses ignore it

    def forward(self, images: Tensor, texts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.image(images), self.text(texts), self.logit_scale.exp()


def example() -> str:
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.S)
    return code


def test_the_readmes_example_trains_the_student_and_the_loss():
    student, teacher = Clip(512), Clip(768)
    batches = [(torch.randn(6, 8), torch.randn(6, 8)) for _ in range(3)]
    before = student.image.weight.detach().clone()
    names = {"student": student, "teacher": teacher, "batches": batches}
    exec(compile(example(), "README.md", "exec"), names)
    assert not torch.equal(before, student.image.weight)
    assert names["losses"].keys() == {"contrastive_loss", "crd_loss", "fd_loss", "icl_loss"}
    assert kdlosses.parameter_report(names["loss"], names["optimizer"]).ok
    assert all(p.grad is None for p in teacher.parameters())
    assert all(p.grad is not None for p in names["loss"].parameters())


def test_the_loop_is_ten_lines():
    lines = [line for line in example().split("for images")[1].splitlines() if line.strip()]
    assert len(lines) <= 10


@pytest.mark.parametrize("name", kdlosses.available_losses())
def test_every_loss_replaces_open_clips_in_the_loop(name):
    torch.manual_seed(0)
    student, teacher = Clip(16), Clip(24)
    loss = kdlosses.build(name, student_dim=16, teacher_dim=24)
    optimizer = torch.optim.AdamW([*student.parameters(), *loss.parameters()], lr=1e-2)
    images, texts = torch.randn(6, 8), torch.randn(6, 8)
    values = []
    for _ in range(15):
        with torch.no_grad():
            taught = teacher(images, texts)
        value = loss(*student(images, texts), *taught, logit_bias=student.logit_bias, dist_logit_bias=-2.0)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < values[0]


def test_clip_loss_is_open_clips():
    torch.manual_seed(0)
    outputs = Clip(16)(torch.randn(5, 8), torch.randn(5, 8))
    unit = [nn.functional.normalize(features, dim=1) for features in outputs[:2]]
    expected = open_clip.ClipLoss()(*unit, outputs[2])
    assert torch.allclose(kdlosses.CLIPLoss()(*outputs), expected)


def test_every_table_of_results_is_the_committed_one():
    text = README + TRAINING
    tables = re.findall(r"<!-- (\S+\.md) -->\n(.*?)\n<!-- end -->", text, flags=re.S)
    assert len(tables) == text.count("<!-- end -->") == TABLES
    for path, shown in tables:
        assert shown == (ROOT / path).read_text(encoding="utf-8").strip(), path


def test_links_lead_to_files():
    for text, folder in ((README, ROOT), (TRAINING, ROOT / "docs")):
        links = re.findall(r"\]\((?!https?:)([^)#]+)\)", text)
        assert links and all((folder / link).exists() for link in links)


def test_what_a_teacher_cache_saves_is_what_was_measured():
    result = json.loads((ROOT / "harness/bench/results/teacher_cache.json").read_text())
    times, memory = result["step"]["times_as_fast"], result["memory"]
    stated = (
        f"steps {times['median']:.1f} times as fast ({times['least']:.1f} to {times['most']:.1f}), memory\n"
        f"{memory['cached_mib']:.0f} instead of {memory['live_mib']:.0f} MiB."
    )
    assert stated in TRAINING


def test_every_key_that_the_page_on_training_names_exists():
    known = {key.name for key in all_keys()}
    named = set(re.findall(r"`((?:train|data|teacher_cache)\.\w+)(?:[:=][^`]*)?`", TRAINING))
    assert named and named <= known, named - known


def test_the_table_of_losses_is_complete():
    named = re.findall(r"^\| `(\w+)` \| `(\w+)` \|", README, flags=re.M)
    assert sorted(name for name, _ in named) == kdlosses.available_losses()
    for name, cls in named:
        assert type(kdlosses.build(name, student_dim=4, teacher_dim=4)).__name__ == cls


def test_the_stated_distance_from_float64_is_the_measured_one():
    stated = r"float32 gradients are within (\S+) of\s+their length, values within (\S+)\."
    gradient, value = re.search(stated, README).groups()
    with (ROOT / "harness/bench/results/losses/agreement.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["dtype"] == "float32"]
    assert {row["backend"] for row in rows} == {"chunked", "dense"}
    assert max(float(row["gradient"]) for row in rows) <= float(gradient)
    assert max(float(row["value"]) for row in rows) <= float(value)
