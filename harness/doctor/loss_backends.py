"""Each loss backend on each device, held against float64."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.doctor.devices import accelerators
from harness.doctor.finding import Finding, failed

LOSSES = ("clip_kd", "afd", "gd", "affinity", "sigmoid_kd")
_ROWS, _STUDENT, _TEACHER, _CHUNK = 200, 32, 48, 64
_SCALE, _BIAS = 30.0, -10.0
# The tests hold float32 to 1e-4; TF32, which keeps 11 bits of each factor, stays below the second.
_CLOSE, _ROUGH = 1e-4, 3e-2
_REINSTALL = "values or gradients are wrong here: install another build of torch, and report it with this output"


def check_backends(_folder: Path) -> Iterator[Finding]:
    """The CPU, then each accelerator."""
    import torch

    yield from check_device("cpu")
    kind, count = accelerators(torch)
    for index in range(count):
        yield from check_device(f"{kind}:{index}")


def check_device(device: str) -> Iterator[Finding]:
    """One row for the backends that agree with float64, one for each that does not or cannot run."""
    from kdlosses import backends

    name, agree = f"losses {device}", []
    for backend, reason in backends.available().items():
        if backend == "reference":
            continue  # the definitions, which nobody trains with
        if reason is None and backend == "triton" and not device.startswith("cuda"):
            reason = "its kernels are for GPUs"
        if reason is not None:
            yield Finding(name, "skipped", f"{backend}: {reason}")
            continue
        try:
            error = largest_error(backend, device)
        except Exception as problem:  # the other backends are still tried
            yield failed(name, problem, "choose another loss.backend, and report it with this output", backend)
            continue
        if error < _CLOSE:
            agree.append(f"{backend} {error:.0e}")
        else:
            yield judge(name, backend, error)
    if agree:
        of = f"largest error of value and gradients, {len(LOSSES)} losses against float64"
        yield Finding(name, "ok", f"{', '.join(agree)} ({of})")


def judge(name: str, backend: str, error: float) -> Finding:
    """The row of a backend that is not close to float64."""
    says = f"{backend} is {error:.0e} from float64"
    if error < _ROUGH:
        fix = "unset TORCH_ALLOW_TF32_CUBLAS_OVERRIDE, or accept TF32's 11 bits"
        return Finding(name, "warning", f"{says}, as with TF32", fix)
    return Finding(name, "fault", says, _REINSTALL)


def largest_error(backend: str, device: str) -> float:
    """The largest relative error of a value or a gradient, of all losses; NaN where one is not finite."""
    import torch

    from kdlosses import backends

    worst = 0.0
    for loss in LOSSES:
        exact = run_loss(loss, "dense", "cpu", torch.float64)
        found = run_loss(loss, _created(backends, backend), device, torch.float32)
        for ours, theirs in zip(found, exact, strict=True):
            error = ((ours.cpu().double() - theirs).norm() / theirs.norm()).item()
            worst = max(worst, error) if math.isfinite(error) else math.nan
        if math.isnan(worst):
            break
    return worst


def _created(backends: Any, name: str) -> Any:
    """Small chunks, so that there are several."""
    return backends.create(name, chunk_size=_CHUNK) if name == "chunked" else backends.create(name)


def run_loss(name: str, backend: Any, device: str, dtype: Any) -> list[Any]:
    """The value and every gradient, of the same numbers whatever the dtype."""
    import torch

    import kdlosses

    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)  # of the loss's own parameters
    loss = kdlosses.build(name, student_dim=_STUDENT, teacher_dim=_TEACHER, backend=backend).to(device, dtype)
    widths = (_STUDENT, _STUDENT, _TEACHER, _TEACHER)
    rows = (torch.randn(_ROWS, width, generator=generator).to(device, dtype) for width in widths)
    image, text, teacher_image, teacher_text = rows
    numbers = [torch.tensor(value, dtype=dtype, device=device) for value in (_SCALE, _BIAS, _SCALE, _BIAS)]
    leaves = [leaf.requires_grad_() for leaf in (image, text, *numbers[:2])]
    scale, bias, teacher_scale, teacher_bias = numbers
    teacher = (teacher_image, teacher_text, teacher_scale)
    value = loss(image, text, scale, *teacher, logit_bias=bias, dist_logit_bias=teacher_bias)
    value.backward()
    gradients = [leaf.grad for leaf in (*leaves, *loss.parameters()) if leaf.grad is not None]
    return [value.detach(), *gradients]
