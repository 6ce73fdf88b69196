"""Cached and live teachers give the same losses on the same views, to the rounding of float16."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from harness.data import BatchAugment, prepare
from harness.data.decode import decode
from harness.data.view import View
from harness.models import LoadedModel, create_model
from harness.teachers.build import build_cache
from harness.teachers.cached import CachedTeacher
from harness.teachers.lookup import TeacherCache
from harness.teachers.opening import open_cache
from harness.teachers.replay import apply_maps, draw_maps
from kdlosses import CLIPKDLoss
from tests.harness import tiny
from tests.harness.teachers.teacher_caches import KINDS, data, raws, recipe
from tests.oracles import ORACLES, World

EPSILON = 2.0**-11  # float16 rounds a number of this size by at most this share,
TINIEST = 2.0**-25  # and one below 2**-14 by at most this
EPOCH = 3


@pytest.fixture(
    scope="module", params=[kind if kind == "csv" else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]
)
def outputs(request, tmp_path_factory) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """What student, live teacher and cached teacher say about the same views."""
    root = tmp_path_factory.mktemp(request.param)
    student = {"model": "test-cached-student", "config": {**tiny.STUDENT, "init_logit_bias": -4}}
    teacher = {"model": "test-cached-teacher", "config": {**tiny.TEACHER, "init_logit_bias": -5.5}}
    wanted = recipe(data(request.param, root), root, student=student, teacher=teacher)
    build_cache(wanted, batch_size=5, part_size=4)
    cache = open_cache(wanted)
    torch.manual_seed(wanted.seed)
    student, teacher = create_model(wanted.student), create_model(wanted.teacher)
    view, captions, cached = shown(wanted, cache)
    live = forward(teacher, view, captions)
    return forward(student, view, captions), live, cache.cached_teachers()[0].model(*cached.features[0])


def shown(wanted, cache: TeacherCache) -> tuple[Tensor, list[str], CachedTeacher]:
    """The view of epoch EPOCH as the student gets it."""
    cut = View(48, wanted.data.crop, wanted.data.crop_scale).cut
    found = [(decode(raw), cache.lookup(raw, EPOCH)) for raw in raws(wanted)]
    cached = CachedTeacher.stack([entry for _, entry in found])
    images = torch.stack([cut(image, entry.box) for (image, _), entry in found])
    return apply_maps(images, cached.maps), [caption for (_, caption), _ in found], cached


@torch.no_grad()
def forward(model: LoadedModel, view: Tensor, captions: list[str]) -> dict[str, Tensor]:
    return model.model.eval()(prepare(view, model.image_size, model.mean, model.std), model.tokenizer(captions))


def test_embeddings_differ_by_the_rounding_of_float16(outputs):
    _, live, cached = outputs
    assert set(cached) == set(live)
    assert cached["logit_scale"] == live["logit_scale"]
    assert cached["logit_bias"] == live["logit_bias"] == -5.5
    for name in ("image_features", "text_features"):
        assert cached[name].dtype == torch.float32
        error = (cached[name] - live[name]).abs()
        # The live batch has another size, which changes float32 sums by some of their last bits.
        assert (error <= EPSILON * live[name].abs() + TINIEST + 1e-6).all()
        assert error.max() > 0


@pytest.mark.parametrize("term", sorted(set(ORACLES) - {"contrastive", "siglip"}))
def test_every_term_differs_by_no_more_than_its_slope_times_that_rounding(outputs, term):
    """|L(live) - L(cached)| <= sum of |dL/dx| (epsilon |x| + tiniest) by a float64 oracle, twice for curvature."""
    student, live, cached = outputs
    torch.manual_seed(1)
    loss = CLIPKDLoss({term: 1.0}, student_dim=16, teacher_dim=24)
    masked = {"masked_image_features": student["image_features"].flip(0)} if term == "mfd" else {}

    def value(teacher: dict[str, Tensor]) -> float:
        targets = {f"dist_{name}": entry for name, entry in teacher.items()}
        return loss(**student, **targets, **masked, output_dict=True)[f"{term}_loss"].item()

    assert abs(value(live) - value(cached)) <= 2 * slope(term, loss, student, live, masked) + 1e-6 * abs(value(live))


def slope(term: str, loss: CLIPKDLoss, student: dict, live: dict, masked: dict) -> float:
    """The largest change to first order."""
    image, text = (live[f"{side}_features"].double().requires_grad_() for side in ("image", "text"))
    taught = (image, text, live["logit_scale"].double())
    learnt = tuple(student[name].double() for name in ("image_features", "text_features", "logit_scale"))
    params = {name: parameter.detach().double() for name, parameter in loss.state_dict().items()}
    biases = (student["logit_bias"].double(), live["logit_bias"].double())
    masked = masked["masked_image_features"].double() if masked else None
    world = World(*learnt, *taught, params, "paper", masked, *biases)
    if term == "gd":  # its oracle cuts the teacher off; but it is symmetric, so the two can change places
        projected = (
            world.projected(rows, name) for rows, name in zip(learnt, ("visual_proj", "text_proj"), strict=False)
        )
        world = World(*taught, *projected, learnt[2], {}, "paper")
    gradients = torch.autograd.grad(ORACLES[term](world), (image, text), allow_unused=True, materialize_grads=True)
    rounding = (EPSILON * side.detach().abs() + TINIEST for side in (image, text))
    return sum((gradient.abs() * most).sum().item() for gradient, most in zip(gradients, rounding, strict=True))


def test_another_view_of_the_same_images_is_beyond_that_rounding(outputs):
    """So the bound is not one that anything passes."""
    _, live, cached = outputs
    wrong = (cached["image_features"].roll(1, 0) - live["image_features"]).abs()
    assert (wrong > 4 * (EPSILON * live["image_features"].abs() + TINIEST + 1e-6)).float().mean() > 0.5


def test_maps_are_applied_as_batch_augment_does_bit_for_bit():
    config = recipe("synthetic:1", "x").data.augment
    images = torch.randint(0, 256, (4, 3, 20, 20), dtype=torch.uint8)
    live = BatchAugment(config)(images, torch.Generator().manual_seed(5))
    assert apply_maps(images, draw_maps(4, config, 5)).equal(live)
    assert apply_maps(images, None).equal(BatchAugment(None)(images, torch.Generator()))
