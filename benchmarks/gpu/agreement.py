"""Every loss, backend and dtype against float64 on the device itself.

The reference is the dense backend in float64 on the same numbers, which the tests hold against independent oracles on a
CPU. Student and teacher are at logit scale 100, where digits are lost first, and their widths and the batch are not
multiples of any tile. One row a case: relative errors of the value and of the longest gradient, and whether they are
within the bounds of the tests' table.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Generator, Tensor

import kdlosses
from benchmarks.gpu.step import Arguments, CaseTable, Journal, parse

SCALE, BIAS = 100.0, -20.0
BATCH, WIDTH, TEACHER_WIDTH = 1100, 88, 136
TINY_BATCH, TINY_WIDTH = 40, 24
COLUMNS = ("loss", "variant", "backend", "dtype", "batch", "dim", "value_error", "gradient_error", "bound")
# Relative length of an error, by the dtype of the features: tests/tolerance.py's rtol, for values float32's at least.
BOUNDS = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 2e-3, torch.bfloat16: 1e-2}
TINY_LOSSES = ("clip_kd", "gd", "siglip")

Outcome = tuple[Tensor, list[Tensor]]
Case = tuple[str, str, str, torch.dtype]


def main(words: list[str]) -> None:
    """Measure every case that has no row yet."""
    given = parse(words)
    torch.backends.cuda.matmul.allow_tf32 = False
    table = CaseTable(given.out / "agreement.csv", Journal(given.work / "agreement.begun"), COLUMNS, given)
    table.run(named(cases(given), given))


def cases(given: Arguments) -> list[Case]:
    """The triton backend first, bfloat16 first: its compiled kernels are what no CPU can test."""
    usable = [name for name, reason in kdlosses.backends.available().items() if reason is None and name != "reference"]
    backends = sorted(usable, key=lambda name: (name != "triton", name))
    losses = sorted(kdlosses.available_losses(without_options=True), key=lambda name: (name != "clip_kd", name))
    dtypes = list(BOUNDS)[::-1]
    if given.tiny:
        losses, dtypes = list(TINY_LOSSES), [torch.bfloat16, torch.float32]
    return [
        (loss, variant, backend, dtype)
        for backend in backends
        for variant in ("paper", "released")
        for dtype in dtypes
        for loss in losses
        if (backend, dtype) != ("triton", torch.float64) and not (given.tiny and variant == "released")
    ]


def named(chosen: list[Case], given: Arguments) -> dict[str, Callable[[], Mapping[str, object]]]:
    """Each case's measurement by its name."""
    batch, width, teacher_width = (TINY_BATCH, TINY_WIDTH, TINY_WIDTH) if given.tiny else (BATCH, WIDTH, TEACHER_WIDTH)
    # The released code has no layers between unequal widths.
    dims = {"paper": (width, teacher_width), "released": (width, width)}
    return {
        f"{case[0]} {case[1]} {case[2]} {word(case[3])}": partial(measure, *case, batch, dims[case[1]], given.device)
        for case in chosen
    }


def measure(
    name: str, variant: str, backend: str, dtype: torch.dtype, batch: int, dims: tuple[int, int], device: str
) -> dict[str, object]:
    """One row's numbers."""
    inputs = [side.to(dtype) for side in features(batch, dims, device)]
    wide = [side.double() for side in inputs]
    largest = max(float(gradient.abs().max()) for gradient in run(name, variant, "dense", wide, 1.0)[1][:2])
    # As a gradient scaler would, so that float16's smallest number does not cut the gradients off.
    upstream = 2.0 ** -round(math.log2(largest))
    exact, found = run(name, variant, "dense", wide, upstream), run(name, variant, backend, inputs, upstream)
    value = relative_error(found[0], exact[0])
    gradient = max(relative_error(ours, theirs) for ours, theirs in zip(found[1], exact[1], strict=True))
    bound = BOUNDS[dtype]
    within = value <= min(bound, BOUNDS[torch.float32]) and gradient <= bound
    return {
        **{"loss": name, "variant": variant, "backend": backend, "dtype": word(dtype), "batch": batch, "dim": dims[0]},
        **{"value_error": f"{value:.1e}", "gradient_error": f"{gradient:.1e}", "bound": bound},
        "status": "ok" if within else "above bound",
    }


def features(batch: int, dims: tuple[int, int], device: str) -> list[Tensor]:
    """Student images and texts, teacher images and texts: pairs that match, a student unlike its teacher."""
    generator = Generator().manual_seed(0)

    def pair(width: int) -> list[Tensor]:
        common, *noises = (torch.randn(batch, width, generator=generator) for _ in range(3))
        return [(common + noise).to(device) for noise in noises]

    return [side for width in dims for side in pair(width)]


def run(name: str, variant: str, backend: str, inputs: list[Tensor], upstream: float) -> Outcome:
    """The value, and the gradients of ``upstream`` times it: of features, scale, bias and the loss's parameters."""
    torch.manual_seed(0)
    dims = {"student_dim": inputs[0].shape[1], "teacher_dim": inputs[2].shape[1]}
    loss = kdlosses.build(name, variant=variant, backend=backend, **dims).to(inputs[0].device)
    if inputs[0].dtype == torch.float64:
        loss = loss.double()
    image, text = (side.clone().requires_grad_() for side in inputs[:2])
    wide = torch.promote_types(torch.float32, inputs[0].dtype)
    scale, bias = (
        torch.tensor(number, dtype=wide, device=image.device, requires_grad=True) for number in (SCALE, BIAS)
    )
    value = loss(image, text, scale, *inputs[2:], SCALE, logit_bias=bias, dist_logit_bias=BIAS)
    (upstream * value).backward()
    gradients = [leaf.grad for leaf in (image, text, scale, bias, *loss.parameters()) if leaf.grad is not None]
    return value.detach(), gradients


def relative_error(found: Tensor, exact: Tensor) -> float:
    """The length of the difference over the length of what is exact."""
    return ((found.double() - exact.double()).norm() / exact.double().norm().clamp_min(1e-300)).item()


def word(dtype: torch.dtype) -> str:
    """A dtype's name without its module."""
    return str(dtype).removeprefix("torch.")


if __name__ == "__main__":
    main(sys.argv[1:])
