"""The page that recommends a loss states the numbers of the study, of the paper and of the benchmark."""

from __future__ import annotations

import re

import pytest

import kdlosses
from tests.docs.pages import python_of, read

PAGE = read("docs/which_loss.md")
STUDY = read("harness/bench/results/study/results_table.md")
NARRATIVE = read("harness/bench/results/study/narrative.md")
COSTS = read("harness/bench/results/losses/cpu.md")
# The page's terms: the study's row, its row at the tuned weight, the benchmark's row.
ROWS = {
    "`fd`": ("FD", "FD, weight 300", "fd"),
    "`mfd`": ("MFD", "MFD, weight 300", "mfd"),
    "`icl`": ("ICL", "ICL", "icl"),
    "`crd`": ("CRD", "CRD, weight 3", "crd"),
    "`gd`": ("GD", "GD, weight 750", "gd"),
    "`afd`": ("AFD", "AFD", "afd"),
    "`fd`, `icl`": ("FD + ICL", "FD + ICL, FD 300", None),
    "`crd`, `icl`": ("CRD + ICL", None, None),
    "`crd`, `fd`, `icl` (CLIP-KD)": ("CLIP-KD", "CLIP-KD, FD 300", "clip_kd"),
}


def cells(text: str) -> dict[str, list[str]]:
    """The rows of the tables in a text, by their first cell."""
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    return {first: rest for first, *rest in lines}


def test_the_table_has_these_rows():
    assert [row for row in cells(PAGE) if row.startswith("`")] == list(ROWS)


@pytest.mark.parametrize("row", ROWS)
def test_a_row_is_what_was_measured(row):
    plain, tuned, loss = ROWS[row]
    published, here, best, cost = cells(PAGE)[row]
    study, baseline = cells(STUDY), float(cells(STUDY)["baseline"][-1])
    assert here == study[plain][5]
    assert published.split()[:1] == ([f"{float(study[plain][-1]) - baseline:+.2f}"] if study[plain][-1] else [])
    assert best.split(" (")[0] == (study[tuned][5] if tuned else "")
    if tuned and "," in tuned:
        assert f"({tuned.split(', ')[1].lower()})" in best
    chunked = re.search(r" ([\d.]+) x matmul", cells(COSTS)[f"`{loss}`"][-1])[1] if loss else ""
    assert cost == chunked


def test_the_limits_are_the_studys():
    assert "The standard deviation over seeds is 2.0 points, pooled" in NARRATIVE
    assert "rank correlation with the published order +0.43" in NARRATIVE.lower()
    assert "rank correlation with the published order +0.77" in NARRATIVE
    assert "The standard deviation over seeds is 2.0 points, pooled" in PAGE
    assert "+0.43" in PAGE and "+0.77" in PAGE


def test_the_recommended_loss_can_be_made():
    scope: dict = {}
    (code,) = python_of("docs/which_loss.md")
    exec(compile(code, "which_loss.md", "exec"), scope)
    assert scope["loss"].weights == {"contrastive": 1.0, "icl": 1.0, "fd": 1500.0}
    assert isinstance(scope["loss"], kdlosses.CLIPKDLoss)
