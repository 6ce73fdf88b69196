"""`CLIPDistillationTrainer` against transformers' own Trainer and against loops written out in plain torch."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import kdlosses
from kdlosses.integrations.hugging_face import CLIPDistillationTrainer, distillation_loss
from kdlosses.integrations.model_adapters import features_of
from kdlosses.integrations.running_means import RunningMeans
from tests.integrations.hf_models import MODELS, Pairs, clip, open_clip_model, seeded, siglip, stacked
from tests.integrations.hf_runs import WEIGHTS, arguments, assert_same, double, everything, loss_for, trainer

pytestmark = pytest.mark.filterwarnings("error::kdlosses.UntrainedParametersWarning")


class Plainly:
    """The Trainer's training written out: decay, clipping, micro batches whose losses are averaged."""

    def __init__(self, student: nn.Module, teacher: nn.Module, loss: nn.Module, make: Any, decay: float) -> None:
        self.model, self.teacher, self.loss = student.train(), teacher.eval(), loss
        named = [*student.named_parameters(), *loss.named_parameters()]
        spared = [name.endswith(("bias", "logit_scale")) or "norm" in name for name, _ in named]
        groups = [
            {"params": [p for (_, p), free in zip(named, spared, strict=True) if not free], "weight_decay": decay},
            {"params": [p for (_, p), free in zip(named, spared, strict=True) if free], "weight_decay": 0.0},
        ]
        self.parameters = [p for _, p in named]
        self.optimizer = make(groups, lr=1e-2)

    def step(self, micro_batches: list[Any], clip_at: float) -> None:
        self.optimizer.zero_grad()
        losses = [sum(distillation_loss(self.model, self.teacher, self.loss, b).values()) for b in micro_batches]
        torch.stack(losses).mean().backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, clip_at)
        self.optimizer.step()
        self.loss.clamp_scales()


# Clipping and AdamW forgive a gradient that is too large as a whole, plain SGD does not.
@pytest.mark.parametrize(
    ("optim", "make", "clip_at"), [("adamw_torch", torch.optim.AdamW, 0.5), ("sgd", torch.optim.SGD, 1e6)]
)
def test_trains_as_a_loop_in_plain_torch_does(optim, make, clip_at, tmp_path):
    """Micro batches, labels that transformers would count, decay, clipping, the loss's parameters among all."""
    data = Pairs(32, torch.float64, label=1)
    student, teacher = double(clip), double(clip, 24, seed=1)
    loss = loss_for(student, teacher)
    copies = copy.deepcopy((student, teacher, loss))
    settings = {"gradient_accumulation_steps": 2, "weight_decay": 0.1, "max_grad_norm": clip_at, "optim": optim}
    settings |= {"train_dataset": data, "lr_scheduler_type": "constant", "max_steps": 2}
    run = trainer(tmp_path, student, teacher, loss, **settings)
    run._get_train_sampler = lambda *_: torch.utils.data.SequentialSampler(data)
    run.train()
    plain = Plainly(*copies, make, decay=0.1)
    for first in 0, 16:
        plain.step([stacked([data[i] for i in range(at, at + 8)]) for at in (first, first + 8)], clip_at)
    # The gradients of k_proj.bias are 0 but for rounding, which AdamW blows up to 1e-12.
    assert_same(everything(run), everything(plain), rtol=1e-9, atol=1e-10)


def test_the_student_learns_and_the_teacher_does_not(tmp_path):
    student, teacher = seeded(clip), seeded(siglip, 24, seed=1).train()
    before, began = copy.deepcopy(teacher.state_dict()), copy.deepcopy(student.state_dict())
    run = trainer(tmp_path, student, teacher, max_steps=24, logging_steps=4, learning_rate=3e-3)
    first = run.evaluate(Pairs(32))["eval_loss"]
    run.train()
    last = run.evaluate(Pairs(32))
    assert last["eval_loss"] < 0.7 * first
    logged = [entry for entry in run.state.log_history if "loss" in entry]
    assert all(logged[-1][f"{term}_loss"] < logged[0][f"{term}_loss"] for term in WEIGHTS)
    assert not teacher.training and not any(p.requires_grad for p in teacher.parameters())
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert student.state_dict().keys() == began.keys()  # no trace of the loss
    assert not student._forward_hooks and not hasattr(student, "kd_loss")


def test_logs_the_mean_of_every_term(tmp_path):
    run = trainer(tmp_path, seeded(clip), seeded(clip, 24, seed=1), gradient_accumulation_steps=2)
    seen = []
    run.loss.register_forward_hook(lambda _, __, terms: seen.append({k: v.item() for k, v in terms.items()}))
    run.train()
    logged = [entry for entry in run.state.log_history if "loss" in entry]
    assert [entry["step"] for entry in logged] == [2, 4]
    for entry, window in zip(logged, (seen[:4], seen[4:]), strict=True):
        means = {name: sum(one[name] for one in window) / 4 for name in seen[0]}
        assert means == pytest.approx({name: entry[name] for name in means}, rel=1e-5)
        assert entry["loss"] == pytest.approx(sum(means.values()), rel=1e-4)  # the Trainer rounds it


def test_counting_a_term_does_not_wait_for_the_device():
    means = RunningMeans()
    means.add({"crd_loss": torch.ones((), device="meta")})  # a meta tensor has no value to wait for
    with pytest.raises((RuntimeError, NotImplementedError)):
        means.take()


def test_evaluation_counts_every_pair_once(tmp_path):
    student, teacher = double(clip), double(clip, 24, seed=1)
    run = trainer(tmp_path, student, teacher)
    found, data = run.evaluate(), Pairs(20, torch.float64)
    parts = [(8, range(0, 8)), (8, range(8, 16)), (4, range(16, 20))]
    with torch.no_grad():
        terms = [
            (size, distillation_loss(student.eval(), teacher, run.loss, stacked([data[i] for i in rows])))
            for size, rows in parts
        ]
    means = {name: sum(size * float(term[name]) for size, term in terms) / 20 for name in terms[0][1]}
    assert {name: found[f"eval_{name}"] for name in means} == pytest.approx(means, rel=1e-6)
    assert found["eval_loss"] == pytest.approx(sum(means.values()))
    run.compute_metrics = lambda given: {"rows": len(given.predictions[0]), "labels": given.label_ids.tolist()}
    predicted = run.predict(data)
    features = features_of(student, stacked([data[i] for i in range(20)]))
    torch.testing.assert_close(torch.tensor(predicted.predictions[1]), features["text_features"].detach())
    assert predicted.metrics["test_rows"] == 20
    assert predicted.metrics["test_labels"] == [*range(8), *range(8), *range(4)]


SIGMOID = {"siglip": 1.0, "sigmoid_kd": 1.0, "fd": 10.0}
PAIRINGS = {
    "clip from siglip": (clip, siglip, None),
    "siglip from siglip": (siglip, siglip, SIGMOID),
    "siglip from clip": (siglip, clip, None),
    "chinese clip from clip": (MODELS["chinese_clip"], clip, None),
    "clip from chinese clip": (clip, MODELS["chinese_clip"], None),
    "clip from open_clip": (clip, open_clip_model, None),
    "open_clip from clip": (open_clip_model, clip, None),
}


FAST_PAIRINGS = {"clip from siglip", "siglip from clip", "clip from open_clip"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in FAST_PAIRINGS else pytest.mark.slow) for name in PAIRINGS]
)
def test_models_of_every_family(name, tmp_path):
    make, make_teacher, weights = PAIRINGS[name]
    student, teacher = seeded(make, 16), seeded(make_teacher, 24, seed=1)
    loss = loss_for(student, teacher, weights=weights or WEIGHTS)
    seen = []
    teacher.register_forward_pre_hook(lambda _, a, k: seen.append(a[1] if a else k["input_ids"]), with_kwargs=True)
    run = trainer(tmp_path, student, teacher, loss, max_steps=3, train_dataset=Pairs(8, own_tokens=True))
    before = everything(run)
    run.train()
    after = everything(run)
    untrained = {name for name, value in after.items() if torch.equal(value, before[name])}
    # No softmax feels a bias, and neither does AdamW.
    assert untrained == ({"student.logit_bias"} if make is siglip and weights is None else set())
    assert sorted(seen[0][:, 0].tolist()) == [63] * 8  # the teacher's own tokens: the student's end comes first
    run.save_model(str(tmp_path / "saved"))
    if make is open_clip_model:
        state = load_file(tmp_path / "saved" / "model.safetensors")
        open_clip_model(16).load_state_dict(state)
    else:
        assert not any(type(student).from_pretrained(tmp_path / "saved", output_loading_info=True)[1].values())


def test_an_evaluation_without_a_batch_says_so(tmp_path):
    run = trainer(tmp_path, clip(), clip(24), dataloader_drop_last=True)
    with pytest.warns(UserWarning, match="eval: there was no batch, so there is no loss; with dataloader_drop_last"):
        run.evaluate(Pairs(7))


def test_compute_loss_by_itself(tmp_path):
    student, teacher = seeded(clip), seeded(clip, 24, seed=1)
    run, batch = trainer(tmp_path, student, teacher), stacked([Pairs(4)[i] for i in range(4)])
    terms = distillation_loss(student, teacher, run.loss, batch)
    torch.testing.assert_close(run.compute_loss(student, batch), sum(terms.values()))


def test_the_default_loss_is_clip_kd_for_both_widths(tmp_path):
    run = CLIPDistillationTrainer(clip(16), arguments(tmp_path), teacher=siglip(24))
    assert run.loss.weights == kdlosses.CLIPKDLoss(student_dim=1, teacher_dim=2).weights
    assert run.loss.visual_proj.weight.shape == (24, 16)


def test_no_teacher_for_a_loss_that_reads_none(tmp_path):
    run = CLIPDistillationTrainer(
        seeded(clip), arguments(tmp_path), loss=kdlosses.CLIPLoss(), train_dataset=Pairs(16), eval_dataset=Pairs(8)
    )
    run.train()
    run.save_model(str(tmp_path / "saved"))
    assert run.evaluate()["eval_contrastive_loss"] > 0
    assert not (tmp_path / "saved" / "kd_loss.safetensors").exists()


def test_scales_stay_in_range(tmp_path):
    student, teacher = seeded(clip), seeded(clip, 24, seed=1)
    loss = loss_for(student, teacher)
    with torch.no_grad():
        loss.cross_logit_scale.fill_(9.0)
    trainer(tmp_path, student, teacher, loss, max_steps=1, learning_rate=1e-4).train()
    assert loss.cross_logit_scale <= math.log(100)


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing. is deprecated:FutureWarning")
@pytest.mark.slow
def test_bfloat16_and_gradient_checkpointing(tmp_path):
    runs, rounded = {}, {}
    for name in "plain", "gradient_checkpointing", "bf16":
        teacher, seen = seeded(siglip, 24, seed=1), []
        teacher.register_forward_pre_hook(lambda *_, seen=seen: seen.append(torch.is_autocast_enabled("cpu")))
        changes = {"logging_steps": 1, "learning_rate": 1e-3} | ({} if name == "plain" else {name: True})
        run = trainer(tmp_path, seeded(clip), teacher, **changes)
        run.train()
        runs[name] = [entry["loss"] for entry in run.state.log_history if "loss" in entry]
        rounded[name] = set(seen)
    assert runs["gradient_checkpointing"] == pytest.approx(runs["plain"], rel=1e-4)
    assert runs["bf16"] == pytest.approx(runs["plain"], rel=0.02)
    assert runs["bf16"] != runs["plain"]
    assert rounded == {"plain": {False}, "gradient_checkpointing": {False}, "bf16": {True}}


@pytest.mark.slow
def test_model_init_begins_anew_with_a_new_loss(tmp_path):
    loss = seeded(kdlosses.CLIPKDLoss, WEIGHTS, student_dim=16, teacher_dim=24)
    began = copy.deepcopy(loss.state_dict())
    run = CLIPDistillationTrainer(
        None,
        arguments(tmp_path, max_steps=2),
        teacher=seeded(clip, 24, seed=1),
        loss=loss,
        model_init=lambda: clip(),
        train_dataset=Pairs(16),
    )
    results = []
    for _ in range(2):
        run.train()
        results.append(everything(run))
    assert_same(results[1], results[0], rtol=0, atol=0)
    assert all(torch.equal(value, began[name]) for name, value in loss.state_dict().items())
    assert not torch.equal(run.loss.visual_proj.weight, loss.visual_proj.weight)
