"""Profile of the losses, operator by operator, as multiples of one B x D x B product.

``python -m harness.bench.profile_losses OUT.csv [--loss clip_kd] [--backend dense,chunked] [--batch 4096] [--dim 512]``
runs forward and backward under torch's profiler and writes one row for each backend and operator: calls, milliseconds,
multiples of the product. Products are the lower bound; everything else is what a backend could still save.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

import kdlosses
from harness.files import write_json
from harness.runs import environment

REPEATS = 3
SMALLEST_SHARE = 0.002


def main(arguments: list[str]) -> None:
    """Profile each backend and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--loss", default="clip_kd")
    parser.add_argument("--backend", default="dense,chunked")
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--dim", type=int, default=512)
    given = parser.parse_args(arguments)
    rows = [row for backend in given.backend.split(",") for row in table(given.loss, backend, given.batch, given.dim)]
    given.out.parent.mkdir(parents=True, exist_ok=True)
    command = " ".join(["python -m harness.bench.profile_losses", *arguments])
    write_json(given.out.with_suffix(".json"), {**environment(), "command": command})
    with given.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def table(name: str, backend: str, batch: int, dim: int) -> list[dict[str, Any]]:
    """One backend's operators, the slowest first, and what is outside of them."""
    loss = kdlosses.build(name, student_dim=dim, teacher_dim=dim, backend=backend)
    inputs = [torch.randn(batch, dim) for _ in range(4)]
    step(loss, inputs)
    matmul = matmul_ms(inputs)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        start = time.perf_counter()
        for _ in range(REPEATS):
            step(loss, inputs)
        total = 1000 * (time.perf_counter() - start) / REPEATS
    spent = {event.key: (event.count, event.self_cpu_time_total / 1000) for event in profiler.key_averages()}
    spent = {key: (count / REPEATS, ms / REPEATS) for key, (count, ms) in spent.items()}
    spent["everything"] = (1, total)
    case = {"loss": name, "backend": backend, "batch": batch, "dim": dim, "matmul_ms": round(matmul, 2)}
    slowest = sorted(spent.items(), key=lambda item: -item[1][1])
    return [
        {**case, "operator": key, "calls": round(count), "ms": round(ms, 2), "matmuls": round(ms / matmul, 3)}
        for key, (count, ms) in slowest
        if ms > SMALLEST_SHARE * total
    ]


def step(loss: torch.nn.Module, inputs: list[Tensor]) -> None:
    """One forward and backward pass."""
    image, text = (side.clone().requires_grad_() for side in inputs[:2])
    loss(image, text, 50.0, *inputs[2:], 100.0).backward()


def matmul_ms(inputs: list[Tensor]) -> float:
    """The fastest of several B x D x B products, into memory that is there already."""
    out = torch.empty(len(inputs[0]), len(inputs[0]))
    times = []
    for _ in range(5):
        start = time.perf_counter()
        torch.mm(inputs[0], inputs[1].T, out=out)
        times.append(1000 * (time.perf_counter() - start))
    return min(times)


if __name__ == "__main__":
    main(sys.argv[1:])
