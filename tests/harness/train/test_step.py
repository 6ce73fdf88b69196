"""A step in slices is the step at once: values, every gradient, what BatchNorm notes, and the random draws after it."""

from __future__ import annotations

import copy
from contextlib import nullcontext

import pytest
import torch

from harness.dry_run import dry_run
from harness.errors import UserError
from harness.train import step as step_module
from harness.train.distributed import DistributedContext
from harness.train.models import build_models
from harness.train.step import check_batch_norm, forward_backward
from harness.train.trainer import Trainer
from tests.grid import tiers
from tests.harness import tiny

ALL = {"contrastive": 1, "crd": 1, "fd": 100, "mfd": 100, "gd": 1, "icl": 1, "afd": 1, "cross_kd": 1}
CPU = torch.device("cpu")
TIMM = {"timm_model_name": "resnet18", "timm_pool": "avg", "image_size": 32}


class _Batch:
    cached = None

    def __init__(self, count: int) -> None:
        torch.manual_seed(1)
        self.view = torch.rand(count, 3, 48, 48)
        self.tokens = {
            "student": torch.randint(1, 49000, (count, 12)),
            "teacher": torch.randint(1, 49000, (count, 16)),
        }


def build(**sections):
    models = build_models(tiny.recipe(**sections), DistributedContext(), CPU)
    return models.task.double().train()


def step(task, batch, slices):
    """Losses, scale, gradients by name, buffers, and the next random number."""
    task = copy.deepcopy(task)
    generator = torch.Generator().manual_seed(5)
    torch.manual_seed(7)
    inputs = task.inputs(batch.view.double(), batch)
    losses, scale = forward_backward(task, inputs, generator, slices, lambda loss: loss)
    gradients = {name: p.grad for name, p in task.trainable()}
    draws = torch.rand(3), torch.rand(3, generator=generator)
    return losses, scale, gradients, dict(task.named_buffers()), draws


def assert_same(one, other):
    assert one[0].keys() == other[0].keys()
    for name, value in one[0].items():
        assert torch.allclose(value, other[0][name], rtol=1e-12, atol=0), name
    assert torch.equal(one[1], other[1])
    assert one[2].keys() == other[2].keys()
    for name, gradient in one[2].items():
        assert gradient is not None, name
        assert torch.allclose(gradient, other[2][name], rtol=1e-9, atol=1e-12), name


@pytest.mark.parametrize("slices", tiers([2, 3, 6], [2]))
def test_slices_add_up_to_the_batch_for_every_term(slices):
    task, batch = build(teacher=tiny.DISTILL["teacher"], loss={"weights": ALL, "mask_ratio": 0.0}), _Batch(12)
    assert_same(step(task, batch, 1), step(task, batch, slices))


DROPPING = {**tiny.STUDENT, "vision_cfg": {**tiny.STUDENT["vision_cfg"], "patch_dropout": 0.5}}


@pytest.mark.parametrize(
    ("student", "weights"),
    [
        (tiny.STUDENT, {"mfd": 100}),
        (DROPPING, {"contrastive": 1, "icl": 1}),
        pytest.param(DROPPING, {"contrastive": 1, "mfd": 100}, marks=pytest.mark.slow),
    ],
)
def test_slices_draw_the_same_in_both_passes(student, weights):
    """Masks and dropout draw otherwise for the batch at once, so slices are held against their embeddings together."""
    task = build(
        student={"model": "test-tiny-drawing", "config": student},
        teacher=tiny.DISTILL["teacher"],
        loss={"weights": weights},
    )
    batch = _Batch(8)
    _, _, gradients, _, _ = step(task, batch, 4)
    torch.manual_seed(7)
    generator = torch.Generator().manual_seed(5)
    parts = task.inputs(batch.view.double(), batch).split(4)
    outputs = [task.encode(part, generator) for part in parts]
    whole = {
        name: torch.cat([output[name] for output in outputs]) if name.endswith("_features") else outputs[0][name]
        for name in outputs[0]
    }
    taught = task.teacher_forward(task.inputs(batch.view.double(), batch))
    sum(task.compute(whole, taught).values()).backward()
    for name, parameter in task.trainable():
        assert torch.allclose(parameter.grad, gradients[name], rtol=1e-9, atol=1e-12), name


def test_batch_norm_notes_each_slice_once():
    student = {"model": "test-tiny-resnet", "config": tiny.RESNET}
    task, batch = build(student=student), _Batch(8)
    _, _, _, buffers, _ = step(task, batch, 2)
    expected = copy.deepcopy(task)
    with torch.no_grad():
        for part in expected.inputs(batch.view.double(), batch).split(2):
            expected.encode(part, torch.Generator())
    noted = {name: value for name, value in expected.named_buffers() if "running" in name or "num_batches" in name}
    assert noted
    for name, value in noted.items():
        assert torch.equal(buffers[name], value), name


def test_a_scale_that_no_term_reads_is_not_trained():
    for term in ALL:
        task = build(teacher=tiny.DISTILL["teacher"], loss={"weights": {term: 1}, "mask_ratio": 0.0})
        trained = {name for name, _ in task.trainable()}
        reads = "student.logit_scale" in trained
        task.student.logit_scale.requires_grad_(True)
        batch = _Batch(4)
        losses = task(task.inputs(batch.view.double(), batch), torch.Generator())
        (gradient,) = torch.autograd.grad(sum(losses.values()), [task.student.logit_scale], allow_unused=True)
        assert reads == (gradient is not None and gradient.item() != 0), term


@pytest.mark.parametrize("slices", tiers([1, 2, 4], [1, 2]))
def test_the_ranks_average_once_a_step(slices, monkeypatch):
    local = []
    monkeypatch.setattr(step_module, "_no_sync", lambda encoder: local.append(encoder) or nullcontext())
    task = build(**tiny.DISTILL)
    step(task, _Batch(8), slices)
    assert len(local) == slices - 1


@pytest.mark.parametrize("model", [tiny.RESNET, {**tiny.STUDENT, "vision_cfg": TIMM}])
def test_batch_norm_of_one_pair_is_refused_beforehand(model):
    student = build(student={"config": model, "model": "test-bn"}).student
    check_batch_norm(student, 2)
    with pytest.raises(
        UserError, match=r"student has BatchNorm \(visual\..*one pair: make train\.batch_size.* at least 2"
    ):
        check_batch_norm(student, 1)


def test_layer_norm_of_one_pair_is_fine():
    check_batch_norm(build().student, 1)


@pytest.mark.parametrize(("batch_size", "accum_freq"), [(1, 1), (16, 16)])
def test_the_trainer_asks_for_the_pairs_of_a_slice(tmp_path, batch_size, accum_freq):
    train = {"batch_size": batch_size, "accum_freq": accum_freq}
    recipe = tiny.recipe(student={"config": tiny.RESNET, "model": "test-bn"}, train=train)
    with pytest.raises(UserError, match="which takes its statistics from the pairs of a micro-batch"):
        Trainer(recipe, tmp_path, CPU)


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "error"), [(4, "student has BatchNorm"), (2, None)])
def test_a_dry_run_says_so_of_the_real_runs_processes(processes, error):
    config = {**tiny.STUDENT, "vision_cfg": TIMM}  # whose last maps are single values, so it cannot take one pair
    recipe = tiny.recipe(student={"config": config, "model": "test-bn"}, train={"batch_size": 16, "accum_freq": 4})
    (result,) = dry_run([("bn", lambda: recipe)], processes=processes)
    assert error in result.error if error else result.error is None and result.memory is not None
