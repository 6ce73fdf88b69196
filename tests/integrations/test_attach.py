"""A loss as a part of the student: what an optimizer and a checkpoint see, and that it leaves no trace."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import kdlosses
from kdlosses.integrations.attach import attach_loss, detach_loss, without_loss


@pytest.fixture
def student() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4))


@pytest.fixture
def loss() -> nn.Module:
    return kdlosses.ICLLoss(student_dim=4, teacher_dim=6)


def test_an_optimizer_made_from_the_student_holds_the_loss(student, loss):
    attach_loss(student, loss)
    assert student.kd_loss is loss
    assert kdlosses.parameter_report(loss, torch.optim.AdamW(student.parameters())).ok


def test_detached_it_is_the_student_it_was(student, loss):
    before = list(student.state_dict())
    attach_loss(student, loss)
    assert len(student.state_dict()) == len(before) + len(loss.state_dict())
    assert detach_loss(student) is loss
    assert list(student.state_dict()) == before


@pytest.mark.parametrize(
    "prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "base_model.model."]
)
def test_the_state_dict_without_the_loss(student, loss, prefix):
    before = [prefix + name for name in student.state_dict()]
    attach_loss(student, loss)
    state = {prefix + name: value for name, value in student.state_dict().items()}
    bare = without_loss(state)
    assert list(bare) == before
    assert len(state) > len(before)
    assert all(bare[name] is state[name] for name in bare)


def test_only_the_attached_losses_names_are_dropped():
    state = {"kd_loss_head.weight": 1, "visual.kd_loss.weight": 2, "kd_loss.cross_logit_scale": 3}
    assert without_loss(state) == {"kd_loss_head.weight": 1, "visual.kd_loss.weight": 2}


@pytest.mark.slow
def test_detach_finds_the_student_within_a_compiled_one(student, loss):
    attach_loss(student, loss)
    assert detach_loss(torch.compile(student)) is loss
    assert not hasattr(student, "kd_loss")


def test_a_second_loss_is_refused(student, loss):
    attach_loss(student, loss)
    with pytest.raises(ValueError, match="has a kd_loss already; take it away with detach_loss"):
        attach_loss(student, loss)


def test_there_is_nothing_to_detach(student):
    with pytest.raises(ValueError, match="has no kd_loss"):
        detach_loss(student)


def test_a_wrapped_student_is_refused(student, loss):
    wrapped = nn.parallel.DistributedDataParallel.__new__(nn.parallel.DistributedDataParallel)
    with pytest.raises(ValueError, match="attach the loss to the bare model first"):
        attach_loss(wrapped, loss)
