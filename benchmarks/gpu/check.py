"""Value and gradients of an implementation against float64, before any of its times counts."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from harness.bench.losses.cases import Case, reads_bias
from harness.bench.losses.implementations import REFERENCE, Setup, make_setup
from harness.bench.losses.inputs import make_inputs

BATCH = 2048
# Ours round once, to 16 bits on the way out. Others round logits to 16 bits too: the bound then tells a wrong formula
# from a rounded one, and the note says how far it is.
OURS, OTHERS = 2e-2, 0.3
NAMES = ("image", "text", "scale", "bias")


class Verdict(NamedTuple):
    """Whether an implementation may be timed, and how far it is from float64."""

    passed: bool
    note: str


def check(case: Case) -> Verdict:
    """Compare at a small batch; what the implementation raises is a failure too."""
    small = replace(case, batch=min(case.batch, BATCH))
    try:
        return _compare(small)
    except Exception as error:
        return Verdict(False, f"{type(error).__name__}: {' '.join(str(error).split())[:250]}")


def _compare(case: Case) -> Verdict:
    inputs = make_inputs(case)
    names = NAMES if reads_bias(case) else NAMES[:3]
    value, found = _run(make_setup(case, inputs))
    wide = replace(case, implementation=REFERENCE, dtype="float64")
    exact_value, exact = _run(make_setup(wide, inputs.to(torch.float64)))
    errors = {
        name: _error(ours, theirs)
        for name, ours, theirs in zip(names, found, exact, strict=False)
        if ours is not None and theirs is not None
    }
    errors["value"] = _error(value, exact_value)
    bound = OTHERS if case.implementation not in ("dense", "chunked", "triton") else OURS
    missing = [name for name, ours, theirs in zip(names, found, exact, strict=False) if ours is None is not theirs]
    note = "errors: " + ", ".join(f"{name} {error:.0e}" for name, error in errors.items())
    note += "".join(f"; no gradient of the {name}" for name in missing)
    return Verdict({"image", "text"} <= errors.keys() and max(errors.values()) <= bound, note)


def _run(setup: Setup) -> tuple[Tensor, list[Tensor | None]]:
    value = setup.forward()
    value.backward()
    gradients = [leaf.grad for leaf in setup.leaves]
    setup.clear()
    return value.detach(), gradients


def _error(found: Tensor, exact: Tensor) -> float:
    """The length of the difference over the length of what is exact."""
    return ((found.double() - exact.double()).norm() / exact.double().norm().clamp_min(1e-300)).item()
