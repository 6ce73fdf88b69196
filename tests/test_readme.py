"""The README is short, its example runs as written, its numbers are the committed ones."""

from __future__ import annotations

import re

import open_clip
import pytest
import torch
from torch import Tensor, nn

import kdlosses
from harness.bench.losses.resultfile import newest, read_rows
from tests.docs.pages import PAGES, RESULTS, python_of, read

README = read("README.md")
LINES = 150
# The order of the README, which is also what it must have.
HEADINGS = [
    "kdlosses",
    "Install and use",
    "Why",
    "Losses",
    "In your trainer",
    "Train a recipe",
    "Results",
    "Cost",
    "Status",
    "Contributing, licence, citation",
]


class Clip(nn.Module):
    """The least that a model in the example does: images and texts in, open_clip's three outputs out."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.image, self.text = nn.Linear(8, width), nn.Linear(8, width)
        self.logit_scale = nn.Parameter(torch.tensor(2.66))
        self.logit_bias = nn.Parameter(torch.tensor(-2.0))  # a SigLIP has one; softmax losses ignore it

    def forward(self, images: Tensor, texts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.image(images), self.text(texts), self.logit_scale.exp()


def test_it_is_short_and_in_order():
    assert len(README.splitlines()) <= LINES
    prose = re.sub(r"```.*?```", "", README, flags=re.S)
    assert re.findall(r"^#+ (.*)$", prose, flags=re.M) == HEADINGS


def test_install_and_use_fit_the_first_screen():
    first = README.splitlines()[:30]
    assert any("pip install ." in line for line in first)
    (code,) = python_of("README.md")
    assert len([line for line in code.splitlines() if line.strip()]) <= 12
    assert code.rstrip().splitlines()[-1] in first


def test_the_example_trains_the_student_and_the_loss():
    student, teacher = Clip(512), Clip(768)
    batches = [(torch.randn(6, 8), torch.randn(6, 8)) for _ in range(3)]
    before = student.image.weight.detach().clone()
    names = {"student": student, "teacher": teacher, "batches": batches}
    (code,) = python_of("README.md")
    exec(compile(code, "README.md", "exec"), names)
    assert not torch.equal(before, student.image.weight)
    assert names["losses"].keys() == {"contrastive_loss", "crd_loss", "fd_loss", "icl_loss"}
    assert kdlosses.parameter_report(names["loss"], names["optimizer"]).ok
    assert all(p.grad is None for p in teacher.parameters())
    assert all(p.grad is not None for p in names["loss"].parameters())


def test_the_quickstart_shows_the_same_example():
    assert python_of("docs/quickstart.md") == python_of("README.md")


@pytest.mark.parametrize("name", kdlosses.available_losses(without_options=True))
def test_every_loss_replaces_open_clips_in_the_loop(name):
    torch.manual_seed(0)
    student, teacher = Clip(16), Clip(24)
    loss = kdlosses.build(name, student_dim=16, teacher_dim=24)
    optimizer = torch.optim.AdamW([*student.parameters(), *loss.parameters()], lr=1e-2)
    images, texts = torch.randn(6, 8), torch.randn(6, 8)
    values = []
    for _ in range(15):
        with torch.no_grad():
            targets = teacher(images, texts)
        value = loss(*student(images, texts), *targets, logit_bias=student.logit_bias, dist_logit_bias=-2.0)
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


def test_the_table_of_results_has_four_of_the_committed_rows():
    committed = read("harness/bench/results/quickstart/table.md").splitlines()
    shown = [line for line in README.split("## Results")[1].split("\n## ")[0].splitlines() if line.startswith("|")]
    assert shown[:2] == committed[:2]
    assert len(shown) == 2 + 4
    assert all(row in committed for row in shown)


def test_the_three_numbers_are_the_committed_ones():
    (gain,) = re.findall(
        r"^\| top-1 \|.*\| (\S+), 3 of 3 \|$", read("harness/bench/results/quickstart/table.md"), flags=re.M
    )
    assert f"**{gain} points** of zero-shot top-1" in README
    rows = newest(read_rows(RESULTS / "losses/cpu.csv"))
    peak = {row.implementation: row.peak_bytes / 2**20 for row in rows if row.loss == "clip_kd" and row.batch == 4096}
    assert f"**{peak['chunked']:.1f} MiB instead of {peak['formula']:.0f} MiB**" in README
    # The third, the distance from float64, is held with the sentence on its page: tests/docs/test_pages.py.
    why = README.split("## Why")[1].split("\n## ")[0]
    assert len(re.findall(r"^- \*\*", why, flags=re.M)) == 3


def test_no_page_claims_a_package_index():
    """The package is on no index: `pip install kdlosses` would install something else, or nothing."""
    for page in PAGES:
        assert not re.search(r"pip install ['\"]?kdlosses", read(page)), page
