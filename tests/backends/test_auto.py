"""What `backend="auto"` chooses, and that it says so once."""

from __future__ import annotations

import copy
import logging

import pytest
import torch

import kdlosses
from kdlosses import backends
from kdlosses.backends import auto
from kdlosses.requests import KL, CrossEntropy, Request, SquaredDistance
from tests.backends.cases import NAMES, SAME, Case
from tests.backends.subjects import Subject
from tests.backends.test_requests import World, tensors
from tests.running import assert_same, run

CPU = Subject(backends.create("dense"), "cpu", torch.float64)
MATRIX = 5 * 5 * 8  # bytes


@pytest.fixture
def world() -> World:
    return World(CPU, tensors(CPU))


def limited(monkeypatch, matrices: float) -> auto.Auto:
    monkeypatch.setattr(auto, "DENSE_BYTES", int(matrices * MATRIX))
    return backends.resolve("auto")


def test_dense_while_its_matrices_fit_and_chunked_beyond(world, monkeypatch):
    requests: list[Request] = [KL(world.student.i2t, world.wide.i2t), KL(world.student.t2i, world.wide.t2i)]
    assert limited(monkeypatch, 2).choose(requests) == "dense"
    assert limited(monkeypatch, 1.99).choose(requests) == "chunked"


def test_a_relation_counts_once_and_a_distance_not_at_all(world, monkeypatch):
    requests: list[Request] = [CrossEntropy(world.student.i2t), CrossEntropy(world.student.t2i)]
    requests.append(SquaredDistance(world.queries, world.wide.image))
    assert limited(monkeypatch, 1).choose(requests) == "dense"
    assert limited(monkeypatch, 0).choose(requests[2:]) == "dense"


def test_the_documented_bound_is_one_gibibyte():
    assert auto.DENSE_BYTES == 2**30


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("matrices", [0, 1000], ids=["chunked", "dense"])
def test_either_choice_gives_what_that_backend_gives(name, matrices, monkeypatch):
    limited(monkeypatch, matrices)
    case = Case(name, SAME)
    chosen = "chunked" if matrices == 0 and name not in {"fd", "mfd"} else "dense"
    found, expected = (run(case.loss(b, torch.float64), case.inputs(torch.float64)) for b in ("auto", chosen))
    assert torch.equal(found.value, expected.value)
    assert_same(found, expected)


def test_each_choice_is_logged_once(monkeypatch, caplog):
    caplog.set_level(logging.INFO, logger="kdlosses")
    loss = Case("crd", SAME).loss("auto", torch.float64)
    for matrices in (1000, 1000, 0, 0, 1000):
        monkeypatch.setattr(auto, "DENSE_BYTES", matrices * MATRIX)
        loss(**SAME.inputs())
    assert [record.getMessage() for record in caplog.records] == [
        "backend auto: dense for 5 pairs on cpu",
        "backend auto: chunked for 5 pairs on cpu",
    ]


def test_an_explicit_choice_is_not_logged_and_not_changed(monkeypatch, caplog):
    caplog.set_level(logging.INFO, logger="kdlosses")
    monkeypatch.setattr(auto, "DENSE_BYTES", 0)
    kdlosses.CLIPLoss(backend="dense")(*list(SAME.inputs().values())[:3])
    assert not caplog.records


def test_a_copy_of_a_loss_chooses_for_itself():
    loss = Case("crd", SAME).loss("auto", torch.float64)
    twin = copy.deepcopy(loss)
    assert twin._backend is not loss._backend
    assert torch.equal(twin(**SAME.inputs()), loss(**SAME.inputs()))
