"""The check of a huge batch finds what it is for: it agrees with the loss, and sees a wrong gradient."""

import json

import pytest
import torch

from harness.bench import large_batch


def test_a_small_batch_passes(tmp_path):
    out = tmp_path / "report.json"
    large_batch.main([str(out), "--batch", "96", "--width", "16"])
    report = json.loads(out.read_text())
    errors = [report[key] for key in report if key.startswith("relative_error")]
    assert len(errors) == 3
    assert max(errors) < 2e-6
    assert report["sampled_gradients"] == 64


@pytest.mark.parametrize("name", ["image", "text"])
def test_a_wrong_gradient_or_value_is_seen(name):
    outcome = large_batch.run(96, 16, "dense")
    outcome.gradients[name] *= 1.001
    outcome.value *= 1.01
    errors = large_batch.check(outcome)
    assert errors[f"relative_error_{name}_gradients"] == pytest.approx(1e-3, rel=0.01)
    assert errors["relative_error_value"] == pytest.approx(1e-2, rel=0.01)


def test_the_batch_is_the_same_every_time():
    first, second = large_batch.make_rows(8, 4), large_batch.make_rows(8, 4)
    assert all(torch.equal(first[name], second[name]) for name in first)
