"""A backend that does not exist, cannot run here or is given nonsense is refused in one sentence; none stands in."""

from __future__ import annotations

import pytest
import torch

import kdlosses
from kdlosses import backends
from kdlosses.backends import chunked
from tests.problems import Problem
from tests.test_errors import naming

REASON = "it is Sunday"


@pytest.fixture
def without_chunked(monkeypatch) -> None:
    monkeypatch.setattr(chunked.Backend, "unavailable", staticmethod(lambda: REASON))


@pytest.mark.parametrize(
    "make", [backends.create, lambda name: kdlosses.CLIPLoss(backend=name)], ids=["create", "loss"]
)
def test_an_unknown_name_lists_the_known(make):
    with pytest.raises(ValueError, match=naming("'tritton'", *backends.available())):
        make("tritton")


def test_an_unknown_option_names_the_nearest():
    with pytest.raises(ValueError, match=r"option of backend 'chunked' 'chunk_sise' is unknown.*'chunk_size'\?"):
        backends.create("chunked", chunk_sise=3)


def test_a_backend_without_options_takes_none():
    with pytest.raises(ValueError, match=r"option of backend 'dense' 'chunk_size' is unknown"):
        backends.create("dense", chunk_size=3)


def test_options_without_a_backend_ask_for_one():
    with pytest.raises(
        ValueError, match=r"'auto' chooses by itself and takes no options; name a backend: chunked, dense"
    ):
        backends.create("auto", chunk_size=3)


@pytest.mark.parametrize("size", [0, -1, True, 1.5, 64.0, "8", [8], float("inf")], ids=repr)
def test_a_chunk_size_is_a_positive_integer(size):
    with pytest.raises(ValueError, match="chunk_size must be a positive integer, got") as refusal:
        backends.create("chunked", chunk_size=size)
    assert repr(size) in str(refusal.value)


@pytest.mark.parametrize("backend", [object(), None, 3, torch.nn.Identity()], ids=["object", "None", "3", "module"])
def test_something_else_is_refused_with_the_way_out(backend):
    with pytest.raises(ValueError, match=r"backend must be a name or come from kdlosses\.backends\.create, got"):
        kdlosses.CLIPLoss(backend=backend)


@pytest.mark.usefixtures("without_chunked")
def test_an_unavailable_backend_is_listed_with_its_reason_and_never_replaced():
    assert backends.available()["chunked"] == REASON
    for make in (backends.create, lambda name: kdlosses.CLIPLoss(backend=name)):
        with pytest.raises(ValueError, match=f"'chunked' cannot be used here: {REASON}"):
            make("chunked")


@pytest.mark.usefixtures("without_chunked")
def test_auto_does_without_an_unavailable_backend():
    loss = kdlosses.CLIPLoss()
    assert torch.isfinite(loss(**Problem().inputs()))


def test_a_wrong_name_is_found_before_a_wrong_option():
    with pytest.raises(ValueError, match=naming("'chunkd'")):
        backends.create("chunkd", chunk_sise=3)
