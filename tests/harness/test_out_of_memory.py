"""Out of memory is recognised whoever says so, and how much was asked for is told."""

from __future__ import annotations

import errno

import numpy
import pytest
import torch

from harness.out_of_memory import memory_shortage

GPU = (
    "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 1 has a total capacity of 79.10 GiB of which 1.25 GiB is "
    "free. Process 7 has 77.8 GiB memory in use."
)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (torch.OutOfMemoryError(GPU), "20.00 GiB more were asked for on GPU 1, which has 1.25 GiB of 79.10 GiB free"),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors"), "was asked for is not known on the GPU"),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"), "not known on the GPU"),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:119] . DefaultCPUAllocator: can't allocate memory: you tried "
                         "to allocate 4000000000000 bytes. Error code 12 (Cannot allocate memory)"),
            "3.6 TiB more were asked for on the CPU",
        ),
        (MemoryError("std::bad_alloc"), "how much was asked for is not known on the CPU"),
        (MemoryError("Unable to allocate 7.28 TiB for an array with shape (1000,)"), "7.28 TiB more were asked for"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "on the CPU"),
    ],
)  # fmt: skip
def test_it_is_recognised(error, said):
    assert said in memory_shortage(error)


def test_real_ones_are_recognised():
    with pytest.raises(RuntimeError) as of_torch:
        torch.empty(2**52, dtype=torch.uint8)
    with pytest.raises(MemoryError) as of_numpy:
        numpy.zeros(2**52, dtype=numpy.uint8).sum()
    for caught in (of_torch, of_numpy):
        assert memory_shortage(caught.value) == "4096.0 TiB more were asked for on the CPU" or (
            "4.00 PiB" in str(caught.value)
        )


@pytest.mark.parametrize(
    "error",
    [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("out of memory"), OSError(errno.EIO, "I/O")],
)
def test_nothing_else_is(error):
    assert memory_shortage(error) is None
