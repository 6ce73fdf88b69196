"""Constant copies of relations cost the other processes nothing: of their rows only what they are copies of travels."""

from __future__ import annotations

import pytest
import torch

import kdlosses
from kdlosses import backends
from kdlosses.distributed import columns, sharded
from kdlosses.distributed.shard import Shard
from tests.problems import Problem
from tests.running import assert_same, build, run

# Images and texts of student and teacher, each once: xrd compares the same four from both sides, as vrd does.
GATHERED = {"xrd": 4, "vrd": 4, "icl": 2, "affinity": 4}


class AsOneOfOne:
    """A backend behind what a process does with requests, alone in its world: gathering gives what it got."""

    name = "sharded"

    @staticmethod
    def unavailable() -> None:
        return None

    def evaluate(self, requests):
        return sharded.evaluate(Shard(None, 0, 1), backends.create("dense"), requests)


@pytest.mark.parametrize("name", GATHERED)
def test_what_is_gathered(name, monkeypatch):
    gathered: list[torch.Tensor] = []
    monkeypatch.setattr(columns, "gather", lambda shard, tensors: gathered.extend(tensors) or list(tensors))
    problem = Problem(student_dim=4, teacher_dim=6)
    loss, twin = build(name, problem, backend=AsOneOfOne()), build(name, problem)
    assert_same(run(loss, problem.inputs()), run(twin, problem.inputs()))
    assert len(gathered) == GATHERED[name]


def test_terms_gather_together(monkeypatch):
    gathered: list[torch.Tensor] = []
    monkeypatch.setattr(columns, "gather", lambda shard, tensors: gathered.extend(tensors) or list(tensors))
    weights = {"icl": 1.0, "vrd": 1.0, "xrd": 1.0, "crd": 1.0, "affinity": 1.0}
    loss = kdlosses.CLIPKDLoss(weights, student_dim=6, teacher_dim=6, backend=AsOneOfOne())
    loss(**Problem().inputs())
    assert len(gathered) == 4
