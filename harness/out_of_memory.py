"""Out of memory, of whatever library and device: recognised, and how much was asked for in words."""

from __future__ import annotations

import errno
import re

# What torch says without a class of its own: of its allocators on CPUs, of CUDA's runtime and libraries, of C++.
_SIGNS = re.compile(
    r"DefaultCPUAllocator: (?:can't allocate|not enough) memory|CUDA error: out of memory|CUDA out of memory"
    r"|CU(?:BLAS|DNN|SPARSE|SOLVER|FFT)_STATUS_ALLOC_FAILED|cudaErrorMemoryAllocation|std::bad_alloc"
    r"|Cannot allocate memory"
)
_ASKED = re.compile(r"(?:tried to allocate|Unable to allocate) ([\d.]+) ?(bytes|[KMGT]iB)", re.IGNORECASE)
_ON_GPU = re.compile(r"GPU (\d+) has a total capacity of ([\d.]+ \w+) of which ([\d.]+ \w+) is free")


def memory_shortage(error: BaseException) -> str | None:
    """How much memory was asked for where, as in "20.0 GiB were asked for"; None for any other error."""
    text = str(error)
    typed = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    system = isinstance(error, OSError) and error.errno == errno.ENOMEM
    if not (typed or system or (isinstance(error, RuntimeError) and _SIGNS.search(text))):
        return None
    asked = _ASKED.search(text)
    amount = f"{_readable(*asked.groups())} more were asked for" if asked else "how much was asked for is not known"
    if gpu := _ON_GPU.search(text):
        return f"{amount} on GPU {gpu[1]}, which has {gpu[3]} of {gpu[2]} free"
    return f"{amount} on {'the GPU' if re.search('CUDA|CUBLAS|CUDNN|cuda', text) else 'the CPU'}"


def _readable(number: str, unit: str) -> str:
    if unit.lower() != "bytes":
        return f"{number} {unit}"
    size = float(number)
    for name in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {name}" if name == "bytes" else f"{size:.1f} {name}"
        size /= 1024
    return f"{size:.1f} TiB"
