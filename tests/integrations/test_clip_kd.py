"""KDClipLoss in place of the released class: its numbers, its parameters, its call; and what it refuses."""

from __future__ import annotations

import argparse
import copy
import logging
import pickle
import warnings
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import kdlosses
from kdlosses.integrations import clip_kd
from kdlosses.integrations.clip_kd import WEIGHTS, KDClipLoss
from tests.problems import STUDENT, TEACHER
from tests.running import leaves

CASES = ["same_dim", "other_dim", "small_batch", "sharp_teacher"]
KEYS = ("task", "ckd", "icl", "cross_kd", "fd", "gd", "afd")
EXACT = {"rtol": 1e-9, "atol": 1e-15}
ALPHAS = {"ckd": 0.5, "icl": 1.5, "cross_kd": 3.0, "fd": 2000.0, "gd": 1e8, "afd": 0.25}
NAMES = ("image_features", "text_features", "logit_scale", "t_image_features", "t_text_features", "t_logit_scale")


def arguments(student: int, teacher: int, **alphas: float) -> argparse.Namespace:
    """What the released trainer's parser and model configurations leave in `args`, as far as the loss reads it."""
    given = dict.fromkeys(ALPHAS, 0.0) | alphas
    weights = {f"alpha_{key}_loss": value for key, value in given.items()}
    return argparse.Namespace(s_embed_dim=student, t_embed_dim=teacher, **weights)


def inputs_of(student: int, teacher: int) -> dict[str, torch.Tensor]:
    features = {name: torch.randn(6, teacher if name[0] == "t" and name[1] == "_" else student) for name in NAMES}
    return features | {"logit_scale": torch.tensor(14.0), "t_logit_scale": torch.tensor(30.0)}


@pytest.mark.parametrize("case", CASES)
def test_the_released_class_s_terms_and_gradients(case, read_golden):
    golden = read_golden(case)
    alphas = ALPHAS if "value.afd" in golden else ALPHAS | {"afd": 0.0}
    widths = golden["image_features"].shape[1], golden["dist_image_features"].shape[1]
    loss = KDClipLoss(arguments(*widths, **alphas)).double()
    loss.load_state_dict({key[6:]: value for key, value in golden.items() if key.startswith("param.")}, strict=True)
    inputs = leaves({key: golden[key] for key in (*STUDENT, *TEACHER)})
    terms = loss(*inputs.values())
    sum(terms).backward()

    weights = {"task": 1.0} | alphas
    for key, term in zip(KEYS, terms, strict=True):
        wanted = golden.get(f"value.{key}", torch.tensor(0.0).double())
        torch.testing.assert_close(term.detach(), weights[key] * wanted, **EXACT)
    for name, leaf in (inputs | {f"param.{name}": p for name, p in loss.named_parameters()}).items():
        parts = [weights[key] * golden[f"grad.{key}.{name}"] for key in KEYS if f"grad.{key}.{name}" in golden]
        assert (leaf.grad is None) == (name in TEACHER)
        if leaf.grad is not None:
            torch.testing.assert_close(leaf.grad, sum(parts), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("key", ALPHAS)
def test_a_weight_is_that_of_its_term_alone(key):
    alphas = {key: 2.0}
    loss = KDClipLoss(arguments(4, 4, **alphas))
    terms = loss(**inputs_of(4, 4))
    assert [name for name, term in zip(KEYS, terms, strict=True) if term] == ["task", key]
    assert all(term.shape == () for term in terms)


def test_terms_of_weight_zero_cost_and_own_nothing():
    loss = KDClipLoss(arguments(4, 4, fd=2000.0))
    assert loss.weights == {"contrastive": 1.0, "fd": 2000.0}
    assert not list(loss.parameters())


def test_zero_has_the_other_terms_dtype_and_device():
    wide = {name: value.double() for name, value in inputs_of(4, 4).items()}
    terms = KDClipLoss(arguments(4, 4))(**wide)
    assert {(term.dtype, term.device.type) for term in terms} == {(torch.float64, "cpu")}
    with torch.device("meta"):
        assert KDClipLoss(arguments(4, 4, icl=1.0)).cross_logit_scale.is_meta


def test_afd_between_different_widths_needs_the_paper_s():
    args = arguments(4, 6, afd=1.0)
    with pytest.raises(ValueError, match='use equal widths or variant="paper"'):
        KDClipLoss(args)
    terms = KDClipLoss(args, variant="paper")(**inputs_of(4, 6))
    assert terms[KEYS.index("afd")] > 0


def test_the_trainer_s_own_call_and_what_it_does_with_the_result():
    """By position and keyword as in its main and its epoch; a sum of seven, `.item()` of each."""
    flags = {"local_loss": False, "gather_with_grad": False, "cache_labels": True, "rank": 0, "world_size": 1}
    loss = KDClipLoss(args=arguments(4, 6, ckd=1.0, icl=1.0, fd=2000.0), use_horovod=False, **flags)
    assert {name.partition(".")[0] for name, _ in loss.named_parameters()} == {
        "visual_proj",
        "text_proj",
        "cross_logit_scale",
    }
    inputs = inputs_of(4, 6)
    inputs["image_features"].requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        task, ckd, icl, cross, fd, gd, afd = loss(*(inputs[name] for name in NAMES))
        total = task + ckd + icl + cross + fd + gd + afd
    optimizer = torch.optim.AdamW([{"params": [inputs["image_features"]]}, {"params": loss.parameters()}])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        total.backward()
    optimizer.step()
    assert total.dtype == torch.float32
    assert (cross.item(), gd.item(), afd.item()) == (0.0, 0.0, 0.0)


def test_a_released_state_dict_may_have_more_than_is_read():
    """The released class always has both scales."""
    state = KDClipLoss(arguments(4, 6, icl=1.0, afd=1.0), variant="paper").state_dict()
    loss = KDClipLoss(arguments(4, 6, fd=1.0))
    loss.load_state_dict(state)
    assert torch.equal(loss.text_proj.bias, state["text_proj.bias"])
    with pytest.raises(RuntimeError, match="whatever"):
        loss.load_state_dict(state | {"whatever": torch.zeros(1)})
    with pytest.raises(RuntimeError, match="visual_proj"):
        loss.load_state_dict({})


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda loss: pickle.loads(pickle.dumps(loss))])
def test_copies(clone):
    loss, inputs = KDClipLoss(arguments(4, 6, icl=1.0, fd=1.0)), inputs_of(4, 6)
    again = clone(loss)
    assert torch.equal(sum(again(**inputs)), sum(loss(**inputs)))
    again.load_state_dict(loss.state_dict() | {"fusion_logit_scale": torch.tensor(1.0)})


@pytest.mark.slow
def test_compiled_whole():
    torch._dynamo.reset()
    loss, inputs = KDClipLoss(arguments(4, 6, icl=1.0, fd=1.0, ckd=1.0)), inputs_of(4, 6)
    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(**inputs), loss(**inputs))


def test_an_attribute_that_is_missing_is_named():
    for name in [*WEIGHTS.values(), "s_embed_dim", "t_embed_dim"]:
        args = arguments(4, 4)
        delattr(args, name)
        with pytest.raises(ValueError, match=f"args has no {name}; .*set args.{name}"):
            KDClipLoss(args)


@pytest.mark.parametrize("value", [-1.0, float("nan"), "1", None])
def test_a_weight_that_is_none(value: Any):
    with pytest.raises(ValueError, match=r"weight of 'args\.alpha_icl_loss' must be a finite number"):
        KDClipLoss(arguments(4, 4, icl=value))


def test_the_released_weight_of_gd_is_refused_with_the_paper_s_gd():
    with pytest.raises(ValueError, match="belongs to variant"):
        KDClipLoss(arguments(4, 4, gd=1e8), variant="paper")


def test_horovod_is_refused():
    with pytest.raises(ValueError, match="use_horovod=True is not supported"):
        KDClipLoss(arguments(4, 4), use_horovod=True)


@pytest.mark.parametrize("size", [1, 4])
def test_another_world_than_there_is(monkeypatch, size):
    together = SimpleNamespace(is_available=lambda: True, is_initialized=lambda: True, get_world_size=lambda group: 2)
    loss = KDClipLoss(arguments(4, 4), world_size=size, gather_with_grad=True)
    monkeypatch.setattr(clip_kd, "dist", together)
    with pytest.raises(ValueError, match=f"world_size={size} but is called among 2 processes; pass world_size=2"):
        loss(**inputs_of(4, 4))


def test_a_world_that_is_not_there():
    loss = KDClipLoss(arguments(4, 4), world_size=8, gather_with_grad=True)
    with pytest.raises(ValueError, match="world_size=8 but is called among 1 processes; pass world_size=1"):
        loss(**inputs_of(4, 4))
    KDClipLoss(arguments(4, 4), world_size=8, gather_with_grad=True, group=None)(**inputs_of(4, 4))


def test_what_is_ignored_is_said_once_by_the_first_process(caplog):
    caplog.set_level(logging.INFO, logger="kdlosses")
    KDClipLoss(arguments(4, 4), cache_labels=True)
    KDClipLoss(arguments(4, 4), gather_with_grad=True, world_size=2)
    KDClipLoss(arguments(4, 4), local_loss=True, rank=1, world_size=2)
    assert not caplog.messages
    KDClipLoss(arguments(4, 4), local_loss=True, world_size=2)
    first, second = caplog.messages
    assert "ignores local_loss" in first
    assert "1/world_size" in second


def test_it_is_a_loss_like_any_other():
    loss = KDClipLoss(arguments(4, 6, icl=1.0))
    assert isinstance(loss, kdlosses.CLIPKDLoss)
    assert "icl" in repr(loss)
    assert "clip_kd" in kdlosses.available_losses()
