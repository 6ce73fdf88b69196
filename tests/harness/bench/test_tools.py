"""The measurements beside `clipkd bench losses`: distance from float64, and where the time goes."""

import csv
import json

import pytest
import torch

import kdlosses
from harness.bench import agreement, profile_losses


@pytest.mark.parametrize("name", ["clip_kd", "gd", "afd"])
def test_float64_agrees_to_rounding_and_bfloat16_to_its_own(name):
    exact = agreement.measure(name, "paper", "chunked", torch.float64, 40, 8)
    rough = agreement.measure(name, "paper", "chunked", torch.bfloat16, 40, 8)
    assert float(exact["value"]) < 1e-13
    assert float(exact["gradient"]) < 1e-13
    # bf16 has 8 significant bits: half a unit in the last place of a gradient is up to 2e-3 of it.
    assert 1e-4 < float(rough["gradient"]) < 8e-3


def test_a_wrong_gradient_shows(monkeypatch):
    honest = agreement.run

    def doubled(name, variant, backend, inputs, upstream):
        value, gradients = honest(name, variant, backend, inputs, upstream)
        return value, gradients if backend == "dense" else [2 * gradient for gradient in gradients]

    monkeypatch.setattr(agreement, "run", doubled)
    row = agreement.measure("crd", "paper", "chunked", torch.float32, 12, 4)
    assert float(row["value"]) < 1e-5
    assert float(row["gradient"]) == pytest.approx(1.0, rel=1e-3)


def test_the_table_has_every_loss_variant_backend_and_dtype(tmp_path, monkeypatch):
    monkeypatch.setattr(agreement, "DTYPES", (torch.float32,))
    out = tmp_path / "agreement.csv"
    agreement.main([str(out), "--backend", "dense,chunked", "--batch", "6", "--dim", "4"])
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 * len(kdlosses.available_losses(without_options=True))
    assert "harness.bench.agreement" in json.loads(out.with_suffix(".json").read_text())["command"]


def test_a_profile_names_the_products_and_the_whole(tmp_path):
    out = tmp_path / "profile.csv"
    profile_losses.main([str(out), "--backend", "dense", "--batch", "64", "--dim", "8"])
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert {"everything", "aten::mm", "aten::exp_"} <= {row["operator"] for row in rows}
    whole = next(row for row in rows if row["operator"] == "everything")
    assert all(float(row["ms"]) <= float(whole["ms"]) for row in rows)
