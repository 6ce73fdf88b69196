"""No loss waits for the device: on fake tensors, which hold no numbers, any look at one raises."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from tests.backends.cases import MIXED, NAMES, SAME, VARIANTS, Case
from tests.backends.subjects import OF_TORCH, subject
from tests.grid import grid
from tests.problems import TEACHER
from tests.running import leaves


def run_fake(case: Case, label: str) -> None:
    """Forward and backward without numbers; every gradient there is has its leaf's shape."""
    dtype = subject(label).dtype
    loss, inputs = case.loss(subject(label).backend, dtype), case.inputs(dtype)
    owned = {key: value.detach() for key, value in loss.named_parameters()}
    with FakeTensorMode() as mode:
        fake = leaves({key: mode.from_tensor(value) for key, value in inputs.items()})
        params = leaves({key: mode.from_tensor(value) for key, value in owned.items()})
        torch.func.functional_call(loss, params, (), fake).backward()
    owners = {key: leaf for key, leaf in (fake | params).items() if leaf.ndim == 2}
    for key, leaf in owners.items():
        unread = {*TEACHER, "text_features"} if case.name == "relation" else TEACHER
        assert (leaf.grad is None) == (key in unread)
        assert leaf.grad is None or leaf.grad.shape == leaf.shape


@grid(
    name=NAMES,
    variant=VARIANTS,
    label=OF_TORCH,
    slow=lambda name, label, **_: (name, label) == ("clip_kd", "chunked-2"),
)
def test_no_loss_looks_at_a_number(name, variant, label):
    """With projections where there can be some; three pairs, as fake operators are slow and tiles many."""
    case = Case(name, MIXED.with_(batch=3), variant)
    run_fake(case if case.possible else Case(name, SAME.with_(batch=3), variant), label)


def test_a_look_at_a_number_would_be_seen():
    """`check=True` does look: were it not refused here, the test above would prove nothing."""
    loss, inputs = Case("crd", SAME).loss("dense", torch.float64), SAME.inputs()
    with FakeTensorMode() as mode:
        inputs = {key: mode.from_tensor(value) for key, value in inputs.items()}
        loss(**inputs)
        loss.check = True
        with pytest.raises(DataDependentOutputException):
            loss(**inputs)
