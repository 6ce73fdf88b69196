"""Steps that are not finite: the weights stay, the samples are written down, the policy decides."""

from __future__ import annotations

import json

import pytest
import torch

from harness.errors import UserError
from harness.metrics import MetricAccumulator, read_metrics
from harness.train import Trainer
from harness.train.nonfinite import NonFiniteMonitor, is_finite_step
from tests.harness import tiny


def poisoned(tmp_path, bad: set[int], **train) -> Trainer:
    """A run whose loss is NaN in these steps."""
    trainer = Trainer(tiny.recipe(train={"steps": 6, "log_every": 3, **train}), tmp_path, torch.device("cpu"))
    compute, taken = trainer.task.compute, iter(range(1, 100))

    def broken(outputs, taught):
        losses = compute(outputs, taught)
        factor = float("nan") if next(taken) in bad else 1.0
        return {name: value * factor for name, value in losses.items()}

    trainer.task.compute = broken
    return trainer


def lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_stop_ends_the_run_and_keeps_the_weights_of_the_step_before(tmp_path):
    trainer = poisoned(tmp_path, {2})
    whole = poisoned(tmp_path / "..", set())
    weights = []
    take = trainer.train_step
    trainer.train_step = lambda batch: (take(batch), weights.append(trainer.parameters[0].detach().clone()))[0]
    with pytest.raises(UserError, match=r"contrastive_loss, grad_norm became NaN or infinite in step 2, .*nonfinite"):
        trainer.run()
    assert torch.equal(weights[0], weights[1])
    assert all(p.isfinite().all() for p in trainer.parameters)
    (told,) = lines(tmp_path / "nonfinite.jsonl")
    assert told["step"] == 2
    assert told["values"] == {"contrastive_loss": "nan", "grad_norm": "nan"}
    next(whole.loader)
    assert told["keys"] == next(whole.loader).keys
    assert not (tmp_path / "checkpoints").exists()


def test_skip_goes_on_and_leaves_the_step_out_of_the_means(tmp_path):
    trainer = poisoned(tmp_path, {2, 3}, on_nonfinite="skip")
    trainer.run()
    assert [line["step"] for line in lines(tmp_path / "nonfinite.jsonl")] == [2, 3]
    assert trainer.nonfinite.count == 2
    reported = read_metrics(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in reported] == [3, 6]
    assert reported[0]["grad_norm"] is None
    first = poisoned(tmp_path / "..", set(), steps=1, log_every=1)
    first.run()
    assert reported[0]["loss"] == read_metrics(first.out / "metrics.jsonl")[0]["loss"]


def test_skip_has_a_limit(tmp_path):
    trainer = poisoned(tmp_path, {1, 2, 4}, on_nonfinite="skip", max_nonfinite=2)
    with pytest.raises(UserError, match=r"in step 4, .*; 3 such steps are more than train.max_nonfinite"):
        trainer.run()


def test_a_report_of_skipped_steps_alone_can_be_shown(tmp_path, capsys):
    poisoned(tmp_path, {2}, on_nonfinite="skip", log_every=1).run()
    assert "tiny 2/6" in (out := capsys.readouterr().out)
    assert "loss -, lr" in out


def test_gradients_that_no_scale_mends_end_an_fp16_run(tmp_path):
    """The scaler alone would skip every step to the end and call it a run."""
    trainer = poisoned(tmp_path, set(), precision="fp16", steps=40, log_every=40)
    trainer.parameters[0].register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(UserError, match="grad_norm became NaN or infinite"):
        trainer.run()


def test_an_interval_without_a_finite_step_reports_none(tmp_path):
    interval = MetricAccumulator(8)
    nan = torch.tensor(float("nan"))
    interval.add({"a_loss": nan}, {"grad_norm": nan}, torch.tensor(False))
    values = interval.flush(1, 0.1)
    assert (values["loss"], values["a_loss"], values["grad_norm"]) == (None, None, None)
    json.dumps(values, allow_nan=False)


def test_verdicts_are_read_once_for_all_steps(tmp_path, monkeypatch):
    """No step waits for the device: the only read is in settle."""
    health = NonFiniteMonitor(tmp_path / "nonfinite.jsonl", "stop", 1)
    reads = []
    stack = torch.stack
    monkeypatch.setattr(torch, "stack", lambda tensors: reads.append(len(tensors)) or stack(tensors))
    for step in range(5):
        health.add(step, torch.tensor(True), {"a_loss": torch.tensor(1.0)}, ["k"])
    assert reads == []
    health.flush()
    health.flush()
    assert reads == [5]


@pytest.mark.parametrize(
    ("loss", "norm", "scale", "finite"),
    [
        (1.0, 1.0, None, True),
        (float("nan"), 1.0, None, False),
        (1.0, float("inf"), None, False),
        (1.0, float("nan"), None, False),
        (1.0, float("inf"), 2.0, True),  # fp16's scaler skips the step and halves its scale
        (1.0, float("inf"), 1.0, False),
        (float("inf"), 1.0, 2.0, False),
    ],
)
def test_a_step_is_finite_if_its_losses_and_its_gradient_are(loss, norm, scale, finite):
    scaler = torch.amp.GradScaler("cpu", enabled=scale is not None, init_scale=scale or 1.0)
    scaler.scale(torch.ones(()))
    assert bool(is_finite_step({"a": torch.tensor(1.0), "b": torch.tensor(loss)}, torch.tensor(norm), scaler)) is finite
