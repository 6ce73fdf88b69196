"""What the options' words stand for, and the sentences for wrong ones."""

from __future__ import annotations

import pytest
import torch

import kdlosses
from harness.bench.losses import choose
from harness.bench.losses.cases import DISTILL_CLIP, grid, known_losses
from harness.bench.losses.measure_grid import computed
from harness.errors import UserError


@pytest.fixture
def known(monkeypatch):
    """Three backends, one of which cannot be used."""
    reasons = {"chunked": None, "dense": None, "triton": "there is no GPU"}
    monkeypatch.setattr(kdlosses.backends, "available", lambda: reasons)


def sentence(call, *arguments: object) -> str:
    with pytest.raises(UserError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_losses():
    assert choose.choose_losses("all") == known_losses()
    assert set(known_losses()) == {*kdlosses.available_losses(), DISTILL_CLIP}
    assert choose.choose_losses(" crd, fd,crd ") == ["crd", "fd"]
    assert choose.choose_losses("icl+crd") == ["icl+crd"]


@pytest.mark.parametrize("name", ["crdd", "crd+crdd", "crd+crd", "clip_kd+crd", "CRD"])
def test_an_unknown_loss_is_named_with_the_known_ones(name):
    said = sentence(choose.choose_losses, f"fd,{name}")
    assert said.startswith(f"--loss {name} is unknown; known: all, clip_kd, afd, affinity, bank, contrastive,")
    assert "terms joined by +" in said


def test_the_nearest_name_is_offered():
    assert sentence(choose.choose_losses, "crdd").endswith("did you mean crd?")


def test_the_definitions_are_measured_when_they_are_named():
    implementations, why_not = choose.choose_implementations("all", "none", "cpu")
    assert "reference" not in implementations and "it is the definitions" in why_not["reference"]
    assert choose.choose_implementations("reference", "none", "cpu") == (["reference"], {})


def test_implementations(known):
    assert choose.choose_implementations("all", "none", "cpu") == (["dense", "chunked"], {"triton": "there is no GPU"})
    assert choose.choose_implementations("chunked,dense", "formula", "cpu") == (["chunked", "dense", "formula"], {})
    implementations, why_not = choose.choose_implementations("none", "all", "cpu")
    assert implementations == ["open_clip", "formula"]
    assert why_not == {
        "memeff": "it has CUDA kernels only",
        "siglip-kernel": "it has CUDA kernels only",
        "formula-compile": "compiling takes minutes, so it is measured when it is named",
    }
    assert choose.choose_implementations("none", "formula-compile", "cpu") == (["formula-compile"], {})


def test_an_explicit_implementation_never_falls_back(known):
    assert sentence(choose.choose_implementations, "dense,triton", "none", "cpu") == (
        "--backend triton cannot be used here: there is no GPU"
    )
    assert "--baselines memeff cannot be used here: it has CUDA" in sentence(
        choose.choose_implementations, "dense", "memeff", "cpu"
    )
    assert "known: all, none, dense, chunked, triton; did you mean dense?" in sentence(
        choose.choose_implementations, "dens", "all", "cpu"
    )
    assert "known: all, none, open_clip, memeff, formula" in sentence(
        choose.choose_implementations, "all", "inf_clip", "cpu"
    )
    assert "nothing to measure" in sentence(choose.choose_implementations, "none", "none", "cpu")


def test_interpreted_kernels_are_not_timed(monkeypatch):
    """The tests set TRITON_INTERPRET, and so does `make bench`: each of its cases would take minutes for nothing."""
    monkeypatch.setattr(kdlosses.backends, "available", lambda: {"dense": None, "triton": None})
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    implementations, why_not = choose.choose_implementations("all", "none", "cpu")
    assert implementations == ["dense"]
    assert "interpreted kernels" in why_not["triton"]
    assert "--backend triton cannot be used" in sentence(choose.choose_implementations, "triton", "none", "cpu")
    monkeypatch.delenv("TRITON_INTERPRET")
    assert choose.choose_implementations("all", "none", "cpu") == (["dense", "triton"], {})


def test_batches():
    assert choose.choose_batches("256,1024") == [256, 1024]
    for text in ("256,0", "-4", "1e3", "256;512", "", ",", "²"):
        assert "expected positive integers such as 256,1024" in sentence(choose.choose_batches, text)


def test_dtypes():
    assert choose.choose_dtypes("bfloat16,float32") == ["bfloat16", "float32"]
    assert "known: float32, bfloat16, float16, float64" in sentence(choose.choose_dtypes, "bf16")
    assert "--dtype is empty" in sentence(choose.choose_dtypes, "")
    assert all(isinstance(getattr(torch, name), torch.dtype) for name in choose.DTYPES)


def test_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose.choose_device("auto") == choose.choose_device("cpu") == "cpu"
    assert "no CUDA device" in sentence(choose.choose_device, "cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose.choose_device("auto") == choose.choose_device("cuda") == "cuda"


def test_the_grid_goes_loss_by_loss_and_up_in_size():
    pairs = computed(["crd", "contrastive"], ["dense", "open_clip", "formula"])
    assert pairs == [
        *(("crd", implementation) for implementation in ("dense", "formula")),
        *(("contrastive", implementation) for implementation in ("dense", "open_clip", "formula")),
    ]
    options = {"variant": "paper", "dim": 8, "teacher_dim": 4, "device": "cpu", "threads": 1}
    cases = grid(pairs, [64, 32, 64], ["float32", "float64"], **options)
    assert len(cases) == len(set(cases)) == 2 * 2 * len(pairs)
    assert [(case.loss, case.batch, case.implementation) for case in cases[:4]] == [
        ("crd", 32, "dense"),
        ("crd", 32, "formula"),
        ("crd", 64, "dense"),
        ("crd", 64, "formula"),
    ]
    assert {case.dtype for case in cases[:10]} == {"float32"}
    assert {(case.dim, case.teacher_dim, case.threads) for case in cases} == {(8, 4, 1)}
