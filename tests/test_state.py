"""Parameters: which loss has which, and what happens to them in state dicts, copies and pickles."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch

import kdlosses
from tests.problems import Problem
from tests.running import build, run
from tests.tolerance import assert_close

NAMES = kdlosses.available_losses(without_options=True)
MIXED = Problem(student_dim=4, teacher_dim=6)
PROJECTIONS = {f"{side}_proj.{kind}" for side in ("visual", "text") for kind in ("weight", "bias")}
FUSION = {f"{side}_fusion_proj.{kind}" for side in ("visual", "text") for kind in ("weight", "bias")}
CROSS = {"cross_logit_scale"}
VERTICAL = {"image_logit_scale", "text_logit_scale"}
# name: (parameters at equal widths, parameters at different widths)
OWNED = {
    "contrastive": (set(), set()),
    "crd": (set(), set()),
    "affinity": (set(), set()),
    "relation": (set(), set()),
    "decoupled_affinity": (set(), set()),
    "vrd": (VERTICAL, VERTICAL | PROJECTIONS),
    "xrd": (CROSS, CROSS | PROJECTIONS),
    "fd": (set(), PROJECTIONS),
    "mfd": (set(), PROJECTIONS),
    "gd": (set(), PROJECTIONS),
    "icl": (CROSS, CROSS | PROJECTIONS),
    "cross_kd": (CROSS, CROSS | PROJECTIONS),
    "afd": (FUSION | {"fusion_logit_scale"}, FUSION | {"fusion_logit_scale"}),
    "gram": (set(), set()),
    "siglip": (set(), set()),
    "sigmoid_kd": (set(), set()),
    "clip_kd": (CROSS, CROSS | PROJECTIONS),
}
each_loss = pytest.mark.parametrize("name", NAMES)


@each_loss
def test_a_loss_owns_what_its_formula_needs_and_nothing_else(name):
    same, mixed = (set(build(name, problem).state_dict()) for problem in (Problem(), MIXED))
    assert (same, mixed) == OWNED[name]
    assert {key for key, p in build(name, MIXED).named_parameters() if p.requires_grad} == mixed


@each_loss
def test_every_parameter_gets_a_gradient(name):
    """DDP stops at a parameter that takes no part."""
    outcome = run(build(name, MIXED), MIXED.inputs())
    assert all(grad is not None for key, grad in outcome.grads.items() if key.startswith("param."))


@each_loss
def test_state_dict_round_trip_through_a_file(name):
    loss, file = build(name, MIXED), io.BytesIO()
    torch.save(loss.state_dict(), file)
    file.seek(0)
    fresh = kdlosses.build(name, **MIXED.dims).double()
    fresh.load_state_dict(torch.load(file, weights_only=True), strict=True)
    assert torch.equal(fresh(**MIXED.inputs()), loss(**MIXED.inputs()))


@each_loss
@pytest.mark.parametrize(
    "clone", [copy.deepcopy, lambda loss: pickle.loads(pickle.dumps(loss))], ids=["copy", "pickle"]
)
def test_clones_compute_the_same_and_share_nothing(name, clone):
    loss = build(name, MIXED)
    twin = clone(loss)
    before = loss(**MIXED.inputs())
    assert torch.equal(twin(**MIXED.inputs()), before)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.fill_(0.5)
    assert torch.equal(loss(**MIXED.inputs()), before)


@each_loss
def test_moves_and_prints_like_any_module(name):
    loss = build(name, MIXED, variant="paper")
    assert all(p.dtype == torch.float32 for p in loss.float().parameters())
    assert "paper" in repr(loss)
    assert loss.eval().training is False
    assert_close(loss(**MIXED.inputs()), loss.train()(**MIXED.inputs()))


def test_an_optimizer_step_lowers_the_loss():
    loss, inputs = build("icl", MIXED), MIXED.inputs()
    optimizer = torch.optim.SGD(loss.parameters(), lr=0.05)
    before = loss(**inputs)
    before.backward()
    optimizer.step()
    assert loss(**inputs) < before
