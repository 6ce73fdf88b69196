"""What the trainer calls as its loss."""

from __future__ import annotations

from torch import Tensor

from kdlosses import CLIPKDLoss
from kdlosses.integrations.open_clip_train.teacher import Teacher


class Objective:
    """The attached loss, with the teacher's constant scale and bias added to each call.

    Args:
        loss: as attached to the student.
        teacher: None where no term reads one.
        accumulate: micro batches of a step. For each of them the trainer asks for the loss of all their features, of
            which its own alone carry a gradient, and adds the gradients up. So the towers get the gradient of the whole
            batch, but what all calls share - the student's scale and bias, the loss's own parameters - would get it
            once for each; here those are divided.

    Attributes:
        calls: how often the trainer has asked for it.
    """

    def __init__(self, loss: CLIPKDLoss, teacher: Teacher | None, accumulate: int) -> None:
        self._loss, self._teacher, self._accumulate = loss, teacher, accumulate
        self.calls = 0
        if accumulate > 1:
            for parameter in loss.parameters():
                parameter.register_hook(self._share)

    def __call__(
        self,
        image_features: Tensor,
        text_features: Tensor,
        logit_scale: Tensor,
        logit_bias: Tensor | None = None,
        dist_image_features: Tensor | None = None,
        dist_text_features: Tensor | None = None,
        output_dict: bool = True,
    ) -> dict[str, Tensor]:
        """The weighted terms, whose sum is what is trained."""
        self.calls += 1
        self._loss.clamp_scales()  # what the last optimizer step has moved
        logit_scale = self._shared(logit_scale)
        logit_bias = None if logit_bias is None else self._shared(logit_bias)
        losses = self._loss(
            image_features,
            text_features,
            logit_scale,
            dist_image_features,
            dist_text_features,
            None if self._teacher is None else self._teacher.scale,
            output_dict=True,
            logit_bias=logit_bias,
            dist_logit_bias=None if self._teacher is None else self._teacher.bias,
        )
        # DDP waits for a gradient of every parameter, and not every term reads the scale or the bias.
        first = next(iter(losses))
        for value in (logit_scale, logit_bias):
            if value is not None:
                losses[first] = losses[first] + 0 * value.sum()
        return losses

    def _shared(self, value: Tensor) -> Tensor:
        if not value.requires_grad or self._accumulate == 1:
            return value
        value = value.view_as(value)  # the bias is a parameter itself, which would keep the hook of each call
        value.register_hook(self._share)
        return value

    def _share(self, gradient: Tensor) -> Tensor:
        return gradient / self._accumulate
