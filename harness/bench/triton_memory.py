"""Memory that a step of the triton backend allocates, counted on meta tensors: no GPU, no kernel runs.

``python -m harness.bench.triton_memory OUT.csv [--batch 32768,1048576] [--dim 512] [--dtype bfloat16]`` writes one row
for each batch: the peak of live tensors above the inputs, forward and backward, and what was asked for, 8 x B x D x 4
bytes. Every tensor that the backend makes is torch's, so this is the allocator's peak but for its rounding; what the
compiled kernels take is in registers and shared memory (``triton_sm90.csv``).
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

import kdlosses
from harness.bench.losses.livebytes import LiveBytes
from harness.files import write_json
from harness.runs import environment
from kdlosses.backends import triton

ASKED = 8 * 4  # bytes for each of the B x D entries of one tower


def main(arguments: list[str]) -> None:
    """Count each batch and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--batch", default="32768,1048576")
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--loss", default="clip_kd")
    given = parser.parse_args(arguments)
    batches = [int(word) for word in given.batch.split(",")]
    rows = [row(given.loss, batch, given.dim, given.dtype) for batch in batches]
    given.out.parent.mkdir(parents=True, exist_ok=True)
    command = " ".join(["python -m harness.bench.triton_memory", *arguments])
    write_json(given.out.with_suffix(".json"), {**environment(), "command": command})
    with given.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def row(loss: str, batch: int, dim: int, dtype: str) -> dict[str, Any]:
    """One line of the table."""
    case = {"loss": loss, "batch": batch, "dim": dim, "dtype": dtype}
    return {**case, "peak_bytes": peak(loss, batch, dim, getattr(torch, dtype)), "asked_bytes": ASKED * batch * dim}


def peak(loss: str, batch: int, dim: int, dtype: torch.dtype, **options: Any) -> int:
    """Bytes above the inputs of one step; ``options`` are the backend's."""

    def features(learns: bool) -> Tensor:
        return torch.empty(batch, dim, dtype=dtype, device="meta", requires_grad=learns)

    def scale(learns: bool) -> Tensor:
        return torch.empty((), device="meta", requires_grad=learns)

    with torch.device("meta"):
        module = kdlosses.build(loss, student_dim=dim, teacher_dim=dim, backend=triton.Backend(**options))
    inputs: list[Any] = [make(learns) for learns in (True, False) for make in (features, features, scale)]
    with _no_device(), LiveBytes() as counter:
        call: Any = module
        call(*inputs, logit_bias=scale(True), dist_logit_bias=scale(False)).backward()
    return counter.peak


@contextlib.contextmanager
def _no_device() -> Iterator[None]:
    """Meanwhile the backend takes tensors from anywhere, cuts them as for Hopper, and launches nothing."""
    from kdlosses.backends.triton import launch, second_launch, sigmoid_launch, tuning

    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(torch, "autocast", lambda *_, **__: contextlib.nullcontext()))
        stack.enter_context(mock.patch.object(triton, "_check", lambda *_: None))
        stack.enter_context(mock.patch.object(tuning, "tile_for", lambda kernel, kind, _: tuning.HOPPER[kernel, kind]))
        for module in (launch, second_launch, sigmoid_launch):
            stack.enter_context(mock.patch.object(module, "launch", lambda *_, **__: None))
        yield


if __name__ == "__main__":
    main(sys.argv[1:])
