"""variant="released" against the released code's own numbers, to 1e-9 in float64."""

from __future__ import annotations

import pytest
import torch

import kdlosses
from tests.problems import STUDENT, TEACHER
from tests.running import leaves

TERMS = {
    "contrastive": "task",
    "crd": "ckd",
    "icl": "icl",
    "cross_kd": "cross_kd",
    "fd": "fd",
    "mfd": "fd",
    "gd": "gd",
    "afd": "afd",
}
CASES = [(case, term) for case in ("same_dim", "other_dim", "small_batch", "sharp_teacher") for term in TERMS]
CASES.remove(("other_dim", "afd"))  # a shape error there; a ValueError here, see tests/test_errors.py
# CLIP-RD's code gives the parts of its VRD one by one.
CLIP_RD = {
    "contrastive": ["task"],
    "crd": ["hrd"],
    "icl": ["icl"],
    "fd": ["fd"],
    "vrd": ["vrd_kl", "vrd_ce_image", "vrd_ce_text"],
    "xrd": ["xrd"],
}
EXACT = {"rtol": 1e-9, "atol": 1e-15}


def widths(golden):
    return {"student_dim": golden["image_features"].shape[1], "teacher_dim": golden["dist_image_features"].shape[1]}


def keywords(golden):
    return {key: golden[key] for key in (*STUDENT, *TEACHER)}


def load_parameters(loss, golden):
    """As a user would load the released loss's state dict: strictly, into the parameters this loss has."""
    own = set(loss.state_dict())
    loss.load_state_dict({key: golden[f"param.{key}"] for key in own}, strict=True)


@pytest.mark.parametrize(("case", "term"), CASES)
def test_value_and_gradients(case, term, read_golden):
    golden, key = read_golden(case), TERMS[term]
    loss = kdlosses.build(term, variant="released", **widths(golden)).double()
    load_parameters(loss, golden)
    inputs = leaves(keywords(golden))
    value = loss(**inputs)
    value.backward()

    torch.testing.assert_close(value.detach(), golden[f"value.{key}"], **EXACT)
    holders = inputs | {f"param.{name}": p for name, p in loss.named_parameters()}
    wanted = {name.removeprefix(f"grad.{key}."): g for name, g in golden.items() if name.startswith(f"grad.{key}.")}
    assert {name for name in holders if name.startswith("param.")} == {
        key for key in wanted if key.startswith("param.")
    }
    for name, gradient in wanted.items():
        torch.testing.assert_close(holders[name].grad, gradient, **EXACT, msg=lambda text, name=name: f"{name}: {text}")
    assert all(inputs[name].grad is None for name in TEACHER)


def test_weighted_sum_of_all_terms(read_golden):
    """Shared projections and scales: one state dict serves every term, and gradients add up."""
    golden = read_golden("same_dim")
    weights = {"contrastive": 1.0, "crd": 0.5, "fd": 2000.0, "gd": 1e8, "icl": 1.5, "afd": 0.25, "cross_kd": 3.0}
    loss = kdlosses.CLIPKDLoss(weights, variant="released", **widths(golden)).double()
    assert {f"param.{key}" for key in loss.state_dict()} == {key for key in golden if key.startswith("param.")}
    load_parameters(loss, golden)
    inputs = leaves(keywords(golden))
    value = loss(**inputs)
    value.backward()

    expected = sum(weight * golden[f"value.{TERMS[term]}"] for term, weight in weights.items())
    torch.testing.assert_close(value.detach(), expected, **EXACT)
    for name, leaf in (inputs | {f"param.{name}": p for name, p in loss.named_parameters()}).items():
        parts = [w * golden.get(f"grad.{TERMS[t]}.{name}", torch.zeros(())) for t, w in weights.items()]
        if name not in TEACHER:
            torch.testing.assert_close(leaf.grad, sum(parts), rtol=1e-9, atol=1e-12)


def summed(golden, term, name):
    """A gradient of all parts of a CLIP-RD term; None where none of them reaches `name`."""
    parts = [golden[key] for part in CLIP_RD[term] if (key := f"grad.{part}.{name}") in golden]
    return sum(parts) if parts else None


def assert_equals_clip_rd(weights, golden):
    loss = kdlosses.CLIPKDLoss(weights, variant="released", **widths(golden)).double()
    load_parameters(loss, golden)
    inputs = leaves(keywords(golden))
    value = loss(**inputs)
    value.backward()
    expected = sum(w * golden[f"value.{part}"] for term, w in weights.items() for part in CLIP_RD[term])
    torch.testing.assert_close(value.detach(), expected, **EXACT)
    for name, leaf in (inputs | {f"param.{name}": p for name, p in loss.named_parameters()}).items():
        parts = [w * grad for term, w in weights.items() if (grad := summed(golden, term, name)) is not None]
        assert (leaf.grad is None) == (not parts)
        if parts:
            torch.testing.assert_close(leaf.grad, sum(parts), rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("term", CLIP_RD)
def test_clip_rd(term, read_golden):
    assert_equals_clip_rd({term: 1.0}, read_golden("clip_rd_released"))


def test_clip_rds_recipe(read_golden):
    """The weights of its script; relations, scales and constants are shared between the terms."""
    weights = {"contrastive": 1.0, "crd": 1.0, "vrd": 1.0, "xrd": 1.0, "icl": 1.0, "fd": 2000.0}
    assert_equals_clip_rd(weights, read_golden("clip_rd_released"))


def test_weighted_sum_with_mixed_widths(read_golden):
    golden = read_golden("other_dim")
    weights = {"contrastive": 1.0, "crd": 1.0, "fd": 2000.0, "gd": 1e8, "icl": 1.0, "cross_kd": 1.0}
    loss = kdlosses.CLIPKDLoss(weights, variant="released", **widths(golden)).double()
    load_parameters(loss, golden)
    expected = sum(w * golden[f"value.{TERMS[t]}"] for t, w in weights.items())
    torch.testing.assert_close(loss(**keywords(golden)).detach(), expected, **EXACT)
