"""What a user's type checker sees: read by mypy, in test_types.py and in ``make lint``; never run."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor
from typing_extensions import assert_type

import kdlosses
from kdlosses import CLIPKDLoss, CLIPLoss, CRDLoss, DistillLoss, MultiTeacherLoss
from kdlosses.integrations.clip_kd import KDClipLoss

image, text = torch.randn(4, 8), torch.randn(4, 8)
teacher = torch.randn(4, 16), torch.randn(4, 16)


def calls(flag: bool, loss: DistillLoss, clip: CLIPLoss, crd: CRDLoss, clip_kd: CLIPKDLoss) -> None:
    """A total by default, the terms by name on request, either where the request is a variable."""
    assert_type(clip(image, text, 14.3), Tensor)
    assert_type(clip(image, text, logit_scale=torch.tensor(14.3), output_dict=False), Tensor)
    assert_type(clip(image, text, 14.3, output_dict=True), dict[str, Tensor])
    assert_type(crd(image, text, 14.3, *teacher, 100.0), Tensor)
    assert_type(crd(image, text, 14.3, *teacher, 100.0, True), dict[str, Tensor])
    assert_type(clip_kd(image, text, 14.3, *teacher, 100.0, output_dict=flag), Tensor | dict[str, Tensor])
    assert_type(loss(image_features=image, text_features=text, logit_scale=1, output_dict=True)["fd_loss"], Tensor)
    assert_type(loss.forward(image, text, 14.3), Tensor)
    assert_type(loss.forward(image, text, 14.3, output_dict=True), dict[str, Tensor])


def by_name(settings: dict[str, float]) -> None:
    """A loss made by name is one like any other, and takes keywords from a configuration file."""
    loss = kdlosses.build("icl", student_dim=8, teacher_dim=16)
    assert_type(loss, DistillLoss)
    assert_type(loss(image, text, 14.3, *teacher, 100.0), Tensor)
    assert_type(kdlosses.build("affinity", **settings), DistillLoss)


def several_teachers(loss: MultiTeacherLoss, flag: bool) -> None:
    """Sequences where one teacher's tensors are, and the same results."""
    images, texts = [teacher[0], image], [teacher[1], text]
    assert_type(loss(image, text, 14.3, images, texts, [100.0, torch.tensor(50.0)]), Tensor)
    assert_type(loss(image, text, 14.3, images, texts, [100.0, 50.0], output_dict=True), dict[str, Tensor])
    assert_type(loss(image, text, 14.3, images, texts, output_dict=flag), Tensor | dict[str, Tensor])


def released_trainer(args: SimpleNamespace) -> None:
    """The released trainer's class returns its seven terms, whatever is asked of others."""
    assert_type(KDClipLoss(args)(image, text, 14.3, *teacher, 100.0), tuple[Tensor, ...])


def mistakes(loss: CLIPKDLoss, several: MultiTeacherLoss) -> None:
    """Each is an error: were it none, mypy would call its comment unused."""
    loss(image, text)  # type: ignore[call-overload]
    loss(image, text, "14.3")  # type: ignore[call-overload]
    loss(image, text, 14.3, masked=image)  # type: ignore[call-overload]
    loss(image, text, 14.3)["crd_loss"]  # type: ignore[index]
    several(image, text, 14.3, *teacher)  # type: ignore[call-overload]
