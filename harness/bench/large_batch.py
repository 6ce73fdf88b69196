"""A batch far beyond what B x B matrices allow, held against float64.

``python -m harness.bench.large_batch OUT.json [--batch 65536] [--width 256] [--backend chunked]`` runs the default
CLIPKDLoss forward and backward in float32, writes down time and the process's peak memory, and then checks it with
formulas of its own in float64: the value over the whole batch, the gradients of sampled images and texts exactly.
"""

from __future__ import annotations

import argparse
import math
import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

import kdlosses
from harness.files import write_json
from harness.runs import environment

SCALE, TEACHER_SCALE, CROSS_SCALE, FD_WEIGHT = 50.0, 100.0, 1 / 0.07, 2000.0
SAMPLES, BLOCK = 64, 256
PAIR_COSINE, AGREEMENT = 0.5, 0.6  # of matching teacher pairs, and of the student with its teacher


@dataclass
class Outcome:
    """The batch as float32 rows, and what the loss made of it."""

    rows: dict[str, Tensor]
    value: float
    gradients: dict[str, Tensor]
    report: dict[str, Any]


def main(arguments: list[str]) -> None:
    """Run, check and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--batch", type=int, default=65_536)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--backend", default="chunked")
    given = parser.parse_args(arguments)
    outcome = run(given.batch, given.width, given.backend)
    print(outcome.report, flush=True)
    command = " ".join(["python -m harness.bench.large_batch", *arguments])
    report = {**outcome.report, **check(outcome), **environment(), "command": command}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(given.out, report)
    print(report)


def run(batch: int, width: int, backend: str) -> Outcome:
    """One forward and backward pass of the default CLIPKDLoss."""
    rows = make_rows(batch, width)
    student = [rows[name].requires_grad_() for name in ("image", "text")]
    loss = kdlosses.CLIPKDLoss(student_dim=width, teacher_dim=width, backend=backend)
    before, start = _peak_mib(), time.perf_counter()
    image, text = student
    value = loss(image, text, SCALE, rows["teacher_image"], rows["teacher_text"], TEACHER_SCALE)
    middle = time.perf_counter()
    value.backward()
    report = {
        "batch": batch,
        "width": width,
        "backend": backend,
        "threads": torch.get_num_threads(),
        "forward_seconds": round(middle - start, 1),
        "backward_seconds": round(time.perf_counter() - middle, 1),
        "peak_resident_mib_before": before,
        "peak_resident_mib": _peak_mib(),
    }
    gradients = {
        name: side.grad for name, side in zip(("image", "text"), student, strict=True) if side.grad is not None
    }
    return Outcome({name: side.detach() for name, side in rows.items()}, value.item(), gradients, report)


def make_rows(batch: int, width: int) -> dict[str, Tensor]:
    """Teacher pairs around common directions, and a student that points roughly the teacher's way."""
    generator = Generator().manual_seed(batch + width)

    def noise() -> Tensor:
        return F.normalize(torch.randn(batch, width, generator=generator), dim=1)

    def near(side: Tensor, cosine: float) -> Tensor:
        return cosine * side + math.sqrt(1 - cosine**2) * noise()

    latent = noise()
    teacher = {f"teacher_{name}": near(latent, math.sqrt(PAIR_COSINE)) for name in ("image", "text")}
    return teacher | {name: near(teacher[f"teacher_{name}"], AGREEMENT) for name in ("image", "text")}


def check(outcome: Outcome) -> dict[str, float]:
    """Relative errors of the value and, as one length each, of the sampled gradients."""
    rows = {name: F.normalize(side.double(), dim=1) for name, side in outcome.rows.items()}
    sums = log_sums(rows)
    errors = {"value": outcome.value, "relative_error_value": abs(outcome.value / value(rows, sums) - 1)}
    sample = torch.randperm(len(rows["image"]), generator=Generator().manual_seed(0))[:SAMPLES]
    for name, other in (("image", "text"), ("text", "image")):
        exact = gradient(rows, sums, name, other, sample, outcome.rows[name])
        found = outcome.gradients[name][sample].double()
        errors[f"relative_error_{name}_gradients"] = ((found - exact).norm() / exact.norm()).item()
    return errors | {"sampled_gradients": len(sample)}


Sums = dict[tuple[str, str], Tensor]


def log_sums(rows: dict[str, Tensor]) -> Sums:
    """Log-sum-exp over all keys for each query, by (queries, keys)."""
    pairs = [("image", "text"), ("text", "image"), ("teacher_image", "teacher_text"), ("teacher_text", "teacher_image")]
    pairs += [("image", "teacher_text"), ("text", "teacher_image")]
    return {pair: torch.cat([z.logsumexp(1) for _, z in _blocks(rows, pair)]) for pair in pairs}


def value(rows: dict[str, Tensor], sums: Sums) -> float:
    """The loss from its definition: CLIP + CRD + ICL + 2000 FD."""
    batch, width = rows["image"].shape
    total = sum(float((rows[side] - rows[f"teacher_{side}"]).square().sum()) for side in ("image", "text"))
    total *= FD_WEIGHT / width
    for query, key in (("image", "text"), ("text", "image")):
        teacher = (f"teacher_{query}", f"teacher_{key}")
        for keys in (key, teacher[1]):
            positives = _scale(query, keys) * (rows[query] * rows[keys]).sum(1)
            total += float((sums[query, keys] - positives).sum()) / 2
        for (block, z), (_, z_t) in zip(_blocks(rows, (query, key)), _blocks(rows, teacher), strict=True):
            log_p, log_t = z - sums[query, key][block, None], z_t - sums[teacher][block, None]
            total += float((log_t.exp() * (log_t - log_p)).sum()) / 2
    return total / batch


def gradient(rows: dict[str, Tensor], sums: Sums, name: str, other: str, sample: Tensor, raw: Tensor) -> Tensor:
    """The gradients of the sampled rows of one side, from the derivative of each term."""
    batch, width = rows[name].shape
    own, teacher = rows[name][sample], (f"teacher_{name}", f"teacher_{other}")
    hit = F.one_hot(sample, batch).double()
    z, z_t = SCALE * own @ rows[other].T, TEACHER_SCALE * rows[teacher[0]][sample] @ rows[teacher[1]].T
    both = _soft(z, sums[name, other][sample, None]) + _soft(z, sums[other, name])
    both_t = _soft(z_t, sums[teacher][sample, None]) + _soft(z_t, sums[teacher[::-1]])
    cross = CROSS_SCALE * own @ rows[teacher[1]].T
    unit = SCALE * ((both - 2 * hit) + (both - both_t)) @ rows[other]
    unit += CROSS_SCALE * (_soft(cross, sums[name, teacher[1]][sample, None]) - hit) @ rows[teacher[1]]
    unit = unit / (2 * batch) + 2 * FD_WEIGHT / (batch * width) * (own - rows[teacher[0]][sample])
    tangent = unit - own * (own * unit).sum(1, keepdim=True)
    return tangent / raw[sample].double().norm(dim=1, keepdim=True)


def _soft(logits: Tensor, log_sum: Tensor) -> Tensor:
    return (logits - log_sum).exp()


def _blocks(rows: dict[str, Tensor], pair: tuple[str, str]) -> Iterator[tuple[slice, Tensor]]:
    for start in range(0, len(rows[pair[0]]), BLOCK):
        block = slice(start, start + BLOCK)
        yield block, _scale(*pair) * rows[pair[0]][block] @ rows[pair[1]].T


def _scale(query: str, key: str) -> float:
    if query.startswith("teacher"):
        return TEACHER_SCALE
    return CROSS_SCALE if key.startswith("teacher") else SCALE


def _peak_mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    main(sys.argv[1:])
