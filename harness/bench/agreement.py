"""Error of each backend against float64, for every loss and input dtype.

``python -m harness.bench.agreement OUT.csv [--backend dense,chunked] [--batch 1100] [--dim 48]`` writes one row for
each loss, variant, backend and dtype: the relative error of the value, and the largest relative error of a gradient,
each gradient as one length. The reference is the dense backend in float64 on the same numbers, which the tests hold
against independent oracles; student and teacher are at logit scale 100, where digits are lost first. Gradients of
16-bit features are rounded to 16 bits on the way out, so their rows say what a trainer gets; the loss is scaled as a
trainer's gradient scaler would, so that float16's smallest number does not cut them off.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import math
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

import kdlosses
from harness.files import write_json
from harness.runs import environment

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
SCALE, BIAS = 100.0, -20.0
Outcome = tuple[Tensor, list[Tensor]]


def main(arguments: list[str]) -> None:
    """Measure every case and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path)
    usable = [name for name, reason in kdlosses.backends.available().items() if reason is None]
    parser.add_argument("--backend", default=",".join(usable))
    parser.add_argument("--batch", type=int, default=1100)  # more than one tile of chunked, the last one ragged
    parser.add_argument("--dim", type=int, default=48)
    given = parser.parse_args(arguments)
    cases = itertools.product(
        kdlosses.available_losses(without_options=True), ("paper", "released"), given.backend.split(","), DTYPES
    )
    rows = [row for case in cases if (row := measure(*case, given.batch, given.dim)) is not None]
    given.out.parent.mkdir(parents=True, exist_ok=True)
    command = " ".join(["python -m harness.bench.agreement", *arguments])
    write_json(given.out.with_suffix(".json"), {**environment(), "command": command})
    with given.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def measure(name: str, variant: str, backend: str, dtype: torch.dtype, batch: int, dim: int) -> dict[str, Any] | None:
    """One row; None where the backend does not compute in this dtype."""
    inputs = [side.to(dtype) for side in features(batch, dim)]
    wide = [side.double() for side in inputs]
    largest = max(float(gradient.abs().max()) for gradient in run(name, variant, "dense", wide, 1.0)[1][:2])
    upstream = 2.0 ** -round(math.log2(largest))
    exact = run(name, variant, "dense", wide, upstream)
    try:
        found = run(name, variant, backend, inputs, upstream)
    except ValueError:
        return None
    gradients = [error(ours, theirs) for ours, theirs in zip(found[1], exact[1], strict=True)]
    case = {"loss": name, "variant": variant, "backend": backend, "dtype": str(dtype).removeprefix("torch.")}
    sizes = {"batch": batch, "dim": dim, "logit_scale": SCALE}
    return {**case, **sizes, "value": f"{error(found[0], exact[0]):.1e}", "gradient": f"{max(gradients):.1e}"}


def features(batch: int, dim: int) -> list[Tensor]:
    """Student images and texts, teacher images and texts: pairs that match, a student unlike its teacher."""
    generator = Generator().manual_seed(0)

    def noise() -> Tensor:
        return torch.randn(batch, dim, generator=generator)

    ours, theirs = noise(), noise()
    return [ours + noise(), ours + noise(), theirs + noise(), theirs + noise()]


def run(name: str, variant: str, backend: str, inputs: list[Tensor], upstream: float) -> Outcome:
    """The value, and the gradients of ``upstream`` times it: of features, scale, bias and the loss's parameters."""
    torch.manual_seed(0)
    dim = inputs[0].shape[1]
    loss = kdlosses.build(name, variant=variant, student_dim=dim, teacher_dim=dim, backend=backend)
    image, text = (side.clone().requires_grad_() for side in inputs[:2])
    scale = torch.tensor(SCALE, dtype=torch.float64, requires_grad=True)
    bias = torch.tensor(BIAS, dtype=torch.float64, requires_grad=True)
    teacher_image, teacher_text = inputs[2:]
    value = loss(image, text, scale, teacher_image, teacher_text, SCALE, logit_bias=bias, dist_logit_bias=BIAS)
    (upstream * value).backward()
    gradients = [leaf.grad for leaf in (image, text, scale, bias, *loss.parameters()) if leaf.grad is not None]
    return value.detach(), gradients


def error(found: Tensor, exact: Tensor) -> float:
    """The length of the difference over the length of what is exact."""
    return ((found.double() - exact.double()).norm() / exact.double().norm().clamp_min(1e-300)).item()


if __name__ == "__main__":
    main(sys.argv[1:])
