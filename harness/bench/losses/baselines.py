"""Other people's losses, and the published formulas: what kdlosses is measured against."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from harness.bench.losses.cases import DISTILL_CLIP, Case, weights_of
from harness.bench.losses.formula import TERMS, Formula
from harness.bench.losses.inputs import STUDENT_SCALE

Call = Callable[..., Tensor]


@dataclass(frozen=True)
class Baseline:
    """One of `--baselines`.

    Args:
        make: the loss for a case, called like those of kdlosses; the second argument is our loss with its layers.
        computes: whether it has a loss, by name.
        unavailable: None when it can be used on a device, else the reason in one sentence.
        note: what a reader of a row must know.
        in_all: whether ``all`` means it too; one that takes minutes to get ready has to be named.
    """

    make: Callable[[Case, nn.Module], Call]
    computes: Callable[[str], bool]
    unavailable: Callable[[str], str | None]
    note: Callable[[Case], str]
    in_all: bool = True


def cast(loss: nn.Module, dtype: torch.dtype) -> None:
    """Give `loss` parameters of `dtype`. Not by `loss.to`: a module on fake tensors cannot be moved."""
    for owner in loss.modules():
        for name, parameter in owner.named_parameters(recurse=False):
            owner.register_parameter(name, nn.Parameter(parameter.detach().to(dtype)))


def _open_clip(case: Case, ours: nn.Module) -> Call:
    """open_clip's ClipLoss, SigLipLoss, or DistillClipLoss: CLIP loss plus cross-entropy to the teacher's softmax.

    The last one's gradient is that of contrastive + crd; its value is larger by the teacher's entropy. All take unit
    embeddings as they are: there the model normalizes, here ours does so itself, in the time that is shown.
    """
    from open_clip.loss import ClipLoss, DistillClipLoss, SigLipLoss

    if case.loss == "siglip":
        sigmoid = SigLipLoss()
        return lambda image, text, scale, *_, logit_bias, **__: sigmoid(image, text, scale, logit_bias)
    if case.loss == DISTILL_CLIP:
        distill = DistillClipLoss()
        return lambda *arguments: sum(distill(*arguments))
    clip = ClipLoss()
    return lambda image, text, scale, *_: clip(image, text, scale)


def _memeff(case: Case, ours: nn.Module) -> Call:
    """memeff's CLIP loss, of unit embeddings. Its temperature is a constant, so the scale gets no gradient.

    `stable=False`: its default multiplies the gradient by another factor than the loss's.
    """
    from memeff import MemoryEfficientCLIPLoss

    loss = MemoryEfficientCLIPLoss(temperature=1 / STUDENT_SCALE, normalized_inputs=True, stable=False)
    return lambda image, text, *_: loss(image, text)


def _formula(case: Case, ours: nn.Module) -> Call:
    cast(ours, case.torch_dtype)
    return Formula(weights_of(case.loss, case.variant), case.variant, ours)


def _formula_compile(case: Case, ours: nn.Module) -> Call:
    return torch.compile(_formula(case, ours))


def _siglip_kernel(case: Case, ours: nn.Module) -> Call:
    """siglip-kernel's loss, of unit embeddings; it takes the scale's logarithm, through which the scale learns."""
    from siglip_kernel import fused_siglip_loss

    return lambda image, text, scale, *_, logit_bias, **__: fused_siglip_loss(image, text, scale.log(), logit_bias)


def _siglip_kernel_unavailable(device: str) -> str | None:
    if device != "cuda":
        return "it has CUDA kernels only"
    return None if find_spec("siglip_kernel") else "it is not installed; run: pip install siglip-kernel==0.1.2"


def _memeff_unavailable(device: str) -> str | None:
    if device != "cuda":
        return "it has CUDA kernels only"
    return None if find_spec("memeff") else "it is not installed; run: pip install memeff==0.3.1"


def _open_clip_note(case: Case) -> str:
    return "DistillClipLoss: value larger by the teacher's entropy" if case.loss == DISTILL_CLIP else ""


def _memeff_note(case: Case) -> str:
    precision = os.environ.get("MEMEFF_INPUT_PRECISION", "tf32")
    return "constant temperature" + (f", float32 products in {precision}" if case.dtype == "float32" else "")


BASELINES: dict[str, Baseline] = {
    "open_clip": Baseline(
        _open_clip, lambda loss: loss in ("contrastive", "siglip", DISTILL_CLIP), lambda device: None, _open_clip_note
    ),
    "memeff": Baseline(_memeff, lambda loss: loss == "contrastive", _memeff_unavailable, _memeff_note),
    "formula": Baseline(
        _formula, lambda loss: set(weights_of(loss, "paper")) <= set(TERMS), lambda device: None, lambda case: ""
    ),
    "formula-compile": Baseline(
        _formula_compile,
        lambda loss: set(weights_of(loss, "paper")) <= set(TERMS),
        lambda device: None,
        lambda case: "the formula under torch.compile",
        in_all=False,
    ),
    "siglip-kernel": Baseline(
        _siglip_kernel,
        lambda loss: loss == "siglip",
        _siglip_kernel_unavailable,
        lambda case: f"siglip-kernel {version('siglip-kernel')}",
    ),
}
