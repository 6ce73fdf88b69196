"""Threads and accelerators as torch sees them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.container import usable_cores
from harness.doctor.finding import Finding, failed
from harness.doctor.processor import GIB

_CHECK_GPU = "look at nvidia-smi; another program may hold the GPU"


def check_devices(_folder: Path) -> Iterator[Finding]:
    """Threads, then each accelerator."""
    import torch

    yield check_threads(torch.get_num_threads(), usable_cores())
    smi = nvidia_smi()
    kind, count = accelerators(torch)
    if kind != "cuda" and smi:
        yield unseen_gpu(smi, torch.__version__, torch.version.cuda)
    elif count == 0:
        yield Finding("devices", "ok", "no GPU: everything runs on the CPU")
    for index in range(count):
        try:
            yield describe_device(torch, kind, index, smi)
        except Exception as error:  # one GPU that fails is a row, and the others are looked at
            yield failed(f"{kind}:{index}", error, _CHECK_GPU)


def check_threads(threads: int, cores: float) -> Finding:
    """Torch's threads against the cores; it does not know of a container's limit."""
    given = os.environ.get("OMP_NUM_THREADS")
    says = f"torch computes with {threads}" + (f" (OMP_NUM_THREADS={given})" if given else "")
    if threads > max(1, round(cores + 0.49)):
        fix = f"export OMP_NUM_THREADS={max(1, int(cores))}"
        return Finding("threads", "warning", f"{says} on {cores:g} cores: they hinder each other", fix)
    return Finding("threads", "ok", says)


def accelerators(torch: Any) -> tuple[str, int]:
    """Kind and number of what torch can compute on beside the CPU: cuda, mps, xpu or another."""
    if not torch.accelerator.is_available():
        return "", 0
    return torch.accelerator.current_accelerator().type, torch.accelerator.device_count()


def describe_device(torch: Any, kind: str, index: int, smi: list[list[str]]) -> Finding:
    """Name and memory of one accelerator."""
    if kind != "cuda":
        name = getattr(getattr(torch, kind, None), "get_device_name", lambda _: "accelerator")(index)
        says = f"{name}: the losses run on it, clipkd itself on cpu and cuda only"
        return Finding(f"{kind}:{index}", "ok", says)
    found = torch.cuda.get_device_properties(index)
    free, total = torch.cuda.mem_get_info(index)
    driver = f"driver {smi[0][1]}" if smi else "driver unknown"
    built = f"ROCm {torch.version.hip}" if torch.version.hip else f"CUDA {torch.version.cuda}"
    says = (
        f"{found.name}, {found.major}.{found.minor}, {free / GIB:.1f} of {total / GIB:.1f} GiB free, {driver}, {built}"
    )
    if free < total / 2:
        return Finding(f"cuda:{index}", "warning", f"{says}: more than half is taken", _CHECK_GPU)
    return Finding(f"cuda:{index}", "ok", says)


def nvidia_smi() -> list[list[str]]:
    """Name and driver of each NVIDIA GPU of the machine, whether torch can use it or not."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    query = [tool, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    rows = [[word.strip() for word in line.split(",")] for line in done.stdout.splitlines()]
    return [row for row in rows if len(row) == 2] if done.returncode == 0 else []


def unseen_gpu(smi: list[list[str]], version: str, cuda: str | None) -> Finding:
    """A GPU that the machine has and torch does not see."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    machine = f"the machine has {len(smi)} GPU ({smi[0][0]}, driver {smi[0][1]})"
    if hidden is not None and (not hidden.strip() or hidden.strip().startswith("-")):
        return Finding("devices", "warning", f"{machine}, hidden by CUDA_VISIBLE_DEVICES={hidden!r}", "unset it")
    if cuda is None:
        fix = "install torch and torchvision in builds for CUDA, together"
        return Finding("devices", "fault", f"{machine}, but torch {version} is built without CUDA", fix)
    fix = f"update the driver to one for CUDA {cuda}, or install a torch for an older CUDA"
    return Finding("devices", "fault", f"{machine}, but torch {version} cannot use it", fix)
