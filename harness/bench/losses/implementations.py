"""Implementations of a loss: the backends of kdlosses and the baselines, each ready to be called."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import kdlosses
from harness.bench.losses import baselines
from harness.bench.losses.cases import Case, build_loss, reads_bias
from harness.bench.losses.inputs import SEED, LossInputs, make_inputs

REFERENCE = "dense"
INTERPRETED = "TRITON_INTERPRET is set, and the time of interpreted kernels says nothing of compiled ones"


@dataclass(frozen=True)
class Setup:
    """One case ready to run; the same set-up serves time and memory.

    Args:
        forward: computes the loss, a 0-d tensor with a graph.
        leaves: everything that gets a gradient.
    """

    forward: Callable[[], Tensor]
    leaves: tuple[Tensor, ...]

    def clear(self) -> None:
        """Drop the gradients, so that the next backward makes new ones."""
        for leaf in self.leaves:
            leaf.grad = None


def make_setup(case: Case, inputs: LossInputs | None = None) -> Setup:
    """Seeded parameters, and the implementation on them.

    Args:
        case: what is computed.
        inputs: its embeddings; None: seeded ones.

    Raises:
        ValueError: when the implementation cannot compute this case; one sentence.
    """
    inputs = make_inputs(case) if inputs is None else inputs
    module = _ours(case)
    baseline = baselines.BASELINES.get(case.implementation)
    loss = module if baseline is None else baseline.make(case, module)
    return _setup(loss, inputs, reads_bias(case))


def backends() -> dict[str, str | None]:
    """Every backend of kdlosses, the reference first, with the reason where it cannot be used here."""
    known = kdlosses.backends.available()
    if known.get("triton", "") is None and os.environ.get("TRITON_INTERPRET", "0") != "0":
        known = {**known, "triton": INTERPRETED}
    return dict(sorted(known.items(), key=lambda item: item[0] != REFERENCE))


def _ours(case: Case) -> nn.Module:
    # The baselines that have layers take ours, so that all implementations compute the same numbers.
    backend = "auto" if case.implementation in baselines.BASELINES else case.implementation
    devices = [torch.cuda.current_device()] if case.device == "cuda" else []
    with torch.random.fork_rng(devices), torch.device(case.device):
        torch.manual_seed(SEED)
        loss = build_loss(case.loss, case.variant, backend, case.dim, case.teacher_dim)
    baselines.cast(loss, case.wide_dtype)
    return loss


def _setup(loss: Callable[..., Tensor], inputs: LossInputs, biased: bool) -> Setup:
    parameters = tuple(loss.parameters()) if isinstance(loss, nn.Module) else ()
    if not biased:
        return Setup(lambda: loss(*inputs.arguments), (*inputs.student, *parameters))
    return Setup(lambda: loss(*inputs.arguments, **inputs.biases), (*inputs.student, inputs.bias, *parameters))
