"""Cores and memory that this process may use."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from pathlib import Path

from harness.container import cpu_limit, memory_limit, usable_cores
from harness.doctor.finding import Finding

GIB = 2**30
# Below it the models of the paper's recipes do not load beside their teacher.
_LITTLE = 4 * GIB


def check_processor(_folder: Path) -> Iterator[Finding]:
    """Cores, then memory."""
    machine, limit = os.cpu_count() or 1, cpu_limit()
    container = f", container limit {limit:g}" if limit is not None else ""
    says = f"{cpu_name()}: {usable_cores():g} of {machine} cores usable{container}"
    if load() > 2 * machine:
        fix = "run it again when it is idle: the speeds below are too low, and a check may not end in time"
        yield Finding("cpu", "warning", f"{says}; the machine is busy (load {load():.0f})", fix)
    else:
        yield Finding("cpu", "ok", says)
    yield check_memory()


def load() -> float:
    """How many processes want to compute, as a mean of the last minute."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def check_memory() -> Finding:
    """Memory of the machine, what is free of it, and the container's limit."""
    total, available = memory()
    limit = memory_limit()
    says = f"{total / GIB:.1f} GiB"
    says += f", {available / GIB:.1f} available" if available is not None else ""
    limited = limit is not None and limit < total
    says += f", container limit {limit / GIB:.1f}" if limit is not None and limited else ""
    usable = min(value for value in (total, available, limit) if value is not None)
    if usable < _LITTLE:
        fix = "end other programs, raise the container's limit, or train with a smaller train.batch_size"
        return Finding("memory", "warning", f"{says}: little for two models", fix)
    return Finding("memory", "ok", says)


def memory(meminfo: Path = Path("/proc/meminfo")) -> tuple[int, int | None]:
    """Bytes in the machine, and bytes that are available where the system tells."""
    if not meminfo.is_file():
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), None
    lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
    return _kib(lines["MemTotal"]), _kib(lines["MemAvailable"])


def _kib(text: str) -> int:
    return int(text.split()[0]) * 1024


def cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name as its maker writes it."""
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
