"""The plain transcription computes what kdlosses computes, at the cost that it is meant to show."""

from __future__ import annotations

import sys
import types
from dataclasses import replace

import pytest
import torch

import kdlosses
from harness.bench.losses.baselines import BASELINES
from harness.bench.losses.cases import DISTILL_CLIP, Case, is_sum, known_losses, weights_of
from harness.bench.losses.formula import TERMS
from harness.bench.losses.implementations import make_setup
from harness.bench.losses.memory import count_live
from tests.tolerance import assert_close

CASE = Case("crd", "paper", "dense", 12, 8, 8, "float64", "cpu", 1)


def outcome(case: Case) -> list[torch.Tensor]:
    """Value and gradients, those of layers in the order of their names."""
    setup = make_setup(case)
    value = setup.forward()
    value.backward()
    return [value.detach(), *(leaf.grad for leaf in setup.leaves if leaf.grad is not None)]


def assert_agree(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> None:
    assert len(ours) == len(theirs) > 2
    for a, b in zip(ours, theirs, strict=True):
        assert_close(b, a, torch.float64)


def of_unit_rows(case: Case) -> list[torch.Tensor]:
    """The outcome of a loss that does not normalize, as if it did: the gradient along a row's own direction is lost."""
    value, *gradients = outcome(case)
    rows = make_setup(case).leaves[:2]
    along = [(g * x).sum(dim=1, keepdim=True) * x for g, x in zip(gradients, rows, strict=False)]
    return [value, *(g - a for g, a in zip(gradients, along, strict=False)), *gradients[2:]]


@pytest.mark.parametrize("teacher_dim", [8, 11])
@pytest.mark.parametrize("variant", ["paper", "released"])
@pytest.mark.parametrize("loss", known_losses())
def test_formula_agrees_with_kdlosses(loss, variant, teacher_dim):
    case = replace(CASE, loss=loss, variant=variant, teacher_dim=teacher_dim)
    if (loss, variant, teacher_dim) == ("afd", "released", 11):
        with pytest.raises(ValueError, match="wrong shape"):
            make_setup(case)
    else:
        assert_agree(outcome(case), outcome(replace(case, implementation="formula")))


def test_every_registered_loss_is_transcribed():
    assert set(TERMS) == set(kdlosses.available_terms())
    assert all(BASELINES["formula"].computes(loss) for loss in kdlosses.available_losses())


@pytest.mark.parametrize("loss", ["contrastive", "siglip"])
def test_open_clips_task_losses_are_ours(loss):
    case = replace(CASE, loss=loss)
    assert_agree(outcome(case), of_unit_rows(replace(case, implementation="open_clip")))


def test_open_clips_distill_loss_has_the_gradient_of_contrastive_and_crd():
    case = replace(CASE, loss=DISTILL_CLIP)
    ours, theirs = outcome(case), of_unit_rows(replace(case, implementation="open_clip"))
    assert_agree(ours[1:], theirs[1:])
    assert theirs[0] > ours[0] + 0.01, "larger by the teacher's entropy"
    assert "entropy" in BASELINES["open_clip"].note(case)
    assert BASELINES["open_clip"].note(replace(CASE, loss="contrastive")) == ""


def test_contenders_say_what_they_compute():
    theirs = ["contrastive", "siglip", DISTILL_CLIP]
    assert [loss for loss in known_losses() if BASELINES["open_clip"].computes(loss)] == theirs
    assert [loss for loss in known_losses() if BASELINES["memeff"].computes(loss)] == ["contrastive"]


def test_memeff_says_why_it_cannot_run(monkeypatch):
    assert "CUDA" in BASELINES["memeff"].unavailable("cpu")
    monkeypatch.setattr("harness.bench.losses.baselines.find_spec", lambda name: None)
    assert "pip install memeff" in BASELINES["memeff"].unavailable("cuda")
    monkeypatch.setattr("harness.bench.losses.baselines.find_spec", lambda name: name)
    assert BASELINES["memeff"].unavailable("cuda") is None
    assert "tf32" in BASELINES["memeff"].note(replace(CASE, dtype="float32"))


def test_memeff_is_asked_for_our_loss(monkeypatch):
    """By a stand-in with the constructor and the call of memeff 0.3.1; it has no temperature to learn."""
    stand_in = types.ModuleType("memeff")

    class MemoryEfficientCLIPLoss(torch.nn.Module):
        def __init__(self, temperature=0.07, normalized_inputs=False, stable=True, tau_plus=0.0, label_smoothing=0.0):
            super().__init__()
            assert normalized_inputs and not stable, "unit rows, and the gradient of the value it returns"
            self.temperature = temperature

        def forward(self, image_features, text_features, tau_plus=None):
            return kdlosses.CLIPLoss()(image_features, text_features, 1 / self.temperature)

    stand_in.MemoryEfficientCLIPLoss = MemoryEfficientCLIPLoss
    monkeypatch.setitem(sys.modules, "memeff", stand_in)
    case = replace(CASE, loss="contrastive")
    ours, theirs = outcome(case), outcome(replace(case, implementation="memeff"))
    assert_agree(ours[:3], theirs)
    assert len(ours) == 4, "value, images, texts, scale"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("implementation", ["formula", "open_clip"])
def test_contenders_take_the_dtype_they_are_given(implementation, dtype):
    case = replace(CASE, loss="contrastive", implementation=implementation, dtype=dtype)
    value, *gradients = outcome(case)
    assert gradients[0].dtype == getattr(torch, dtype)
    assert value.item() == pytest.approx(outcome(replace(case, implementation="dense"))[0].item(), rel=0.02)


def test_layers_have_the_dtype_of_the_features():
    setup = make_setup(replace(CASE, loss="afd", implementation="formula", dtype="bfloat16", teacher_dim=11))
    assert {leaf.dtype for leaf in setup.leaves[3:]} == {torch.bfloat16}
    assert setup.forward().isfinite()


def test_clip_kd_keeps_fourteen_matrices():
    """Logits of three relations and their log-softmaxes, for KL also the teacher's softmax, each in two directions."""
    batch, dim = 256, 4
    case = replace(CASE, loss="clip_kd", implementation="formula", batch=batch, dim=dim, teacher_dim=dim)
    assert 14 <= count_live(make_setup(case)).both / (8 * batch**2) < 14.5


def test_gd_makes_the_released_codes_tensors():
    """Two of B x D x B kept for the student's two directions; on the way back two more."""
    batch, dim = 64, 48
    case = replace(CASE, loss="gd", implementation="formula", batch=batch, dim=dim, teacher_dim=dim)
    peaks = count_live(make_setup(case))
    one = 8 * batch * dim * batch
    assert 3 < peaks.forward / one < 3.5
    assert 4 < peaks.both / one < 4.5


def test_sums_of_terms_have_their_default_weights():
    assert weights_of("fd+crd", "paper") == {"fd": 2000.0, "crd": 1.0}
    assert weights_of("clip_kd", "paper") == {"contrastive": 1.0, "crd": 1.0, "fd": 2000.0, "icl": 1.0}
    assert weights_of("gd", "paper") == {"gd": 1.0}
    assert is_sum("crd+icl") and not any(map(is_sum, ["crd", "crd+crd", "crd+", "crd+nope", "clip_kd+crd", ""]))


def test_all_subjects_get_the_same_layers():
    state = torch.get_rng_state()
    setups = [
        make_setup(replace(CASE, loss="afd", implementation=implementation)) for implementation in ("dense", "formula")
    ]
    assert torch.equal(state, torch.get_rng_state()), "the caller's random numbers are not touched"
    for ours, theirs in zip(setups[0].leaves[3:], setups[1].leaves[3:], strict=True):
        assert torch.equal(ours.double(), theirs.double())
