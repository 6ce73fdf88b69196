"""`train.compile`: student and teachers are compiled, and compute what they computed before."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from harness.train import train
from tests.harness import tiny


def losses(out, **changes):
    train(tiny.recipe(**tiny.DISTILL, train={"steps": 3, "log_every": 1, **changes}), out)
    lines = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines]


@pytest.fixture(autouse=True)
def _forget_what_was_compiled():
    yield
    torch._dynamo.reset()


@pytest.mark.slow
@pytest.mark.parametrize("slices", [1, 2])
def test_compiled_models_give_the_same_losses_under_the_same_names(tmp_path, monkeypatch, slices):
    compiled = []
    really = nn.Module.compile

    def quickly(model: nn.Module) -> None:
        compiled.append(model)
        really(model, backend="aot_eager")  # traced and differentiated as for any backend; inductor takes minutes

    monkeypatch.setattr(nn.Module, "compile", quickly)
    plain = losses(tmp_path / "plain", accum_freq=slices)
    assert not compiled
    assert losses(tmp_path / "fast", accum_freq=slices, compile=True) == pytest.approx(plain, rel=1e-5)
    assert len(compiled) == 2, "the student and the teacher"
    # Weights keep their names, so that such a run can be resumed and exported as any other.
    saved = (tmp_path / name / "checkpoints" / "latest.pt" for name in ("plain", "fast"))
    first, second = (torch.load(path, weights_only=True)["state_dict"] for path in saved)
    assert first.keys() == second.keys()
