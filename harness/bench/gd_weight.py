"""Measurement behind the default weight of the paper's GD: gradient norms of GD and the other terms.

``python -m harness.bench.gd_weight OUT.csv`` measures the gradients at the student's embeddings over batch sizes,
widths, student scales and agreement with the teacher, one row a case. The last columns are the weights at which its
gradient is as long as the CLIP loss's, and as FD's at its weight of 2000.

The embeddings: a teacher's pairs share a latent direction (cosine 0.5 between matching image and text); a student's are
``b`` times the teacher's plus noise, ``b`` being their cosine: 0.3 early in training, 0.6 and 0.9 later.
"""

from __future__ import annotations

import csv
import itertools
import math
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from harness.files import write_json
from harness.runs import environment
from kdlosses import build

TERMS = ("contrastive", "crd", "fd", "icl", "gd")
BATCHES = (64, 256, 1024)
WIDTHS = (128, 512)
SCALES = (14.3, 30.0, 100.0)
AGREEMENTS = (0.3, 0.6, 0.9)
TEACHER_SCALE, TEACHER_COSINE, FD_WEIGHT = 100.0, 0.5, 2000


def main(out: Path) -> None:
    """Measure every case and write the table."""
    rows = [measure(*case) for case in itertools.product(BATCHES, WIDTHS, SCALES, AGREEMENTS)]
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out.with_suffix(".json"), {**environment(), "command": f"python -m harness.bench.gd_weight {out}"})
    with out.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def measure(batch: int, width: int, scale: float, agreement: float) -> dict[str, float]:
    """One case: the length of each term's gradient, and the weights that would balance GD's."""
    generator = Generator().manual_seed(batch + width)
    latent = _noise(batch, width, generator)
    teacher = [_mix(latent, math.sqrt(TEACHER_COSINE), generator) for _ in range(2)]
    student = [_mix(side, agreement, generator) for side in teacher]
    norms = {term: gradient_norm(term, student, scale, teacher) for term in TERMS}
    row = {"batch": batch, "width": width, "scale": scale, "agreement": agreement}
    row.update({f"grad_{term}": float(f"{norm:.4g}") for term, norm in norms.items()})
    row["weight_as_contrastive"] = float(f"{norms['contrastive'] / norms['gd']:.4g}")
    row["weight_as_fd"] = float(f"{FD_WEIGHT * norms['fd'] / norms['gd']:.4g}")
    return row


def gradient_norm(term: str, student: list[Tensor], scale: float, teacher: list[Tensor]) -> float:
    """The length of an unweighted term's gradient at the student's image and text embeddings."""
    image, text = (side.clone().requires_grad_() for side in student)
    teacher_image, teacher_text = teacher
    build(term)(image, text, scale, teacher_image, teacher_text, TEACHER_SCALE).backward()
    assert image.grad is not None and text.grad is not None
    return torch.cat([image.grad, text.grad]).norm().item()


def _noise(batch: int, width: int, generator: Generator) -> Tensor:
    return F.normalize(torch.randn(batch, width, generator=generator, dtype=torch.float64), dim=1)


def _mix(base: Tensor, cosine: float, generator: Generator) -> Tensor:
    batch, width = base.shape
    noise = _noise(batch, width, generator)
    return F.normalize(cosine * base + math.sqrt(1 - cosine**2) * noise, dim=1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
