"""The measurement behind GD's default weight measures what it says, and the committed table supports the default."""

import csv
from pathlib import Path

import pytest
import torch

import kdlosses
from harness.bench import gd_weight

RESULTS = Path(gd_weight.__file__).parent / "results" / "gd_weight.csv"


def rows() -> list[dict[str, float]]:
    with RESULTS.open() as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def test_a_row_can_be_measured_again():
    case = {"batch": 64, "width": 128, "scale": 30.0, "agreement": 0.6}
    (committed,) = [row for row in rows() if case.items() <= row.items()]
    assert gd_weight.measure(64, 128, 30.0, 0.6) == pytest.approx(committed, rel=2e-3)


def test_gradient_norm_is_that_of_both_embeddings():
    image, text = torch.eye(3, dtype=torch.float64), torch.eye(3, dtype=torch.float64)[[1, 2, 0]]
    found = gd_weight.gradient_norm("fd", [image, text], 10.0, [text, image])
    # d mse / d x = 2 (x - y) / (B D), tangential to the unit sphere: x is orthogonal to y, so only y's part stays.
    assert found == pytest.approx((2 * 3 * (2 / 9) ** 2) ** 0.5)


def test_the_default_is_the_balanced_weight_at_the_papers_size():
    default = kdlosses.default_weights("paper")["gd"]
    sharp = [row for row in rows() if row["scale"] == 100 and row["agreement"] <= 0.6]
    for row in sharp:
        scaled = default * (row["batch"] / 1024) ** 2 * (row["width"] / 512)
        assert 0.2 < scaled / row["weight_as_contrastive"] < 3, row
