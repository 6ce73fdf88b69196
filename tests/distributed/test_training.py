"""Trained on several processes, student and loss parameters are equal on all and those of one process."""

from __future__ import annotations

from functools import cache

import pytest
import torch

import kdlosses
from tests.distributed import training
from tests.tolerance import assert_close

pytestmark = pytest.mark.distributed
alone = cache(training.alone)


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("name", training.JOBS)
def test_parameters_stay_equal_and_right(name, size, results):
    found = results(size)[f"training-{name}"]
    for parameters in found[1:]:
        assert all(torch.equal(value, found[0][key]) for key, value in parameters.items())
    assert found[0].keys() == alone().keys()
    for key, value in alone().items():
        assert_close(found[0][key], value, message=key)


def test_training_moves_every_parameter():
    before = dict(training.Task(training.loss()).named_parameters())
    for key, value in alone().items():
        assert not torch.equal(value, before[key]), key


def test_without_other_processes_sharing_does_nothing():
    loss = training.loss()
    before = {key: value.clone() for key, value in loss.state_dict().items()}
    hooks = [len(p._post_accumulate_grad_hooks) for p in loss.parameters()]
    kdlosses.share_parameters(loss)
    kdlosses.share_parameters(loss, group=None)
    assert all(torch.equal(value, before[key]) for key, value in loss.state_dict().items())
    assert [len(p._post_accumulate_grad_hooks) for p in loss.parameters()] == hooks


@pytest.mark.parametrize("group", ["all", 3, True])
def test_a_group_is_a_group(group):
    with pytest.raises(ValueError, match="group must be"):
        kdlosses.CRDLoss(group=group)
    with pytest.raises(ValueError, match="group must be"):
        kdlosses.share_parameters(training.loss(), group=group)
