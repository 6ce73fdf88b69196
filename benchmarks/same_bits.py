"""Whether two commits compute the same bits: a hash of the value and of every gradient of every loss.

`OMP_NUM_THREADS=1 python -m benchmarks.same_bits --out before.tsv` at the one, and `--against before.tsv` at the other,
which names what differs and exits 1. Losses alone, all terms in one sum, and several teachers; both variants; dense and
chunked; float32, float64 and bfloat16; equal and different widths; on one process and on two.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import os
import socket
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

import kdlosses

SEEDS = (0, 1, 2)
DTYPES = (torch.float32, torch.float64, torch.bfloat16)
WIDTHS = ((12, 12), (12, 20))
BATCH = 38  # a last tile that is not full
BACKENDS = {"dense": {}, "chunked": {"chunk_size": 16}}
SUMS = ("clip_kd", "every term", "two teachers")


def lines(group: Any = None) -> Iterator[str]:
    """`case, number, hash` of everything, for this process's rows."""
    names = [*sorted({*kdlosses.available_losses(without_options=True)} - {"clip_kd"}), *SUMS]
    cases = itertools.product(names, ("paper", "released"), BACKENDS, DTYPES, WIDTHS, SEEDS if group is None else [0])
    for name, variant, backend, dtype, widths, seed in cases:
        torch.manual_seed(seed)
        made = kdlosses.backends.create(backend, **BACKENDS[backend])
        loss = make(name, variant, widths, {"variant": variant, "backend": made, "group": group})
        if loss is None:
            continue
        rank, size = (dist.get_rank(), dist.get_world_size()) if group is not None else (0, 1)
        inputs = make_inputs(seed, dtype, widths, slice(rank * BATCH // size, (rank + 1) * BATCH // size))
        if name == "two teachers":
            inputs |= {key: [value, value * 0.9 + 0.1] for key, value in inputs.items() if key.startswith("dist_")}
        case = f"{name}/{variant}/{backend}/{dtype}/{widths}/{seed}/{rank} of {size}"
        for number, found in results(loss, inputs).items():
            yield f"{case}\t{number}\t{digest(found)}"


def make(name: str, variant: str, widths: tuple[int, int], keywords: dict[str, Any]) -> nn.Module | None:
    """The loss, or None where the released code has none of these widths."""
    weights = kdlosses.default_weights(variant)
    options = {"affinity": {"teacher_scale": 50.0}}
    if variant == "released" and widths[0] != widths[1]:
        weights.pop("afd")
        if name == "afd":
            return None
    dims = {"student_dim": widths[0], "teacher_dim": widths[1]}
    if name == "every term":
        return kdlosses.CLIPKDLoss(weights, options=options, **dims, **keywords)
    if name == "two teachers":
        several = {"student_dim": widths[0], "teacher_dims": [widths[1]] * 2, "teacher_weights": [3, 1]}
        return kdlosses.MultiTeacherLoss(weights, options=options, **several, **keywords)
    return kdlosses.build(name, **dims, **keywords)


def make_inputs(seed: int, dtype: torch.dtype, widths: tuple[int, int], rows: slice) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed + 100)

    def features(width: int) -> Tensor:
        return torch.randn(BATCH, width, generator=generator, dtype=torch.float64)[rows].to(dtype)

    student = {key: features(widths[0]) for key in ("image_features", "text_features", "masked_image_features")}
    numbers = {"logit_scale": torch.tensor(14.3), "logit_bias": torch.tensor(-3.0)}
    teacher = {"dist_image_features": features(widths[1]), "dist_text_features": features(widths[1])}
    return {
        **{key: value.requires_grad_() for key, value in {**student, **numbers}.items()},
        **teacher,
        "dist_logit_scale": torch.tensor(40.0),
        "dist_logit_bias": torch.tensor(-5.0),
    }


def results(loss: nn.Module, inputs: dict[str, Any]) -> dict[str, Tensor | None]:
    """Every term, and the gradients of inputs and parameters."""
    terms = loss(**inputs, output_dict=True)
    sum(terms.values()).backward()
    gradients = {key: value.grad for key, value in inputs.items() if isinstance(value, Tensor)}
    return {**terms, **gradients, **{key: value.grad for key, value in loss.named_parameters()}}


def digest(found: Tensor | None) -> str:
    if found is None:
        return "none"
    content = found.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return hashlib.sha256(content).hexdigest()[:16]


def work(rank: int, port: int, folder: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=2)
    quiet()
    (Path(folder) / f"{rank}.tsv").write_text("\n".join(lines(dist.group.WORLD)), encoding="utf-8")
    dist.destroy_process_group()


def quiet() -> None:
    warnings.simplefilter("ignore", kdlosses.UntrainedParametersWarning)
    torch.set_num_threads(1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="file of hashes; those of two processes lie beside it")
    parser.add_argument("--against", type=Path, help="such a file of another commit")
    given = parser.parse_args()
    quiet()
    found = [*lines()]
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    given.out.parent.mkdir(parents=True, exist_ok=True)
    mp.spawn(work, (port, str(given.out.parent)), nprocs=2)
    for rank in range(2):
        found += (given.out.parent / f"{rank}.tsv").read_text(encoding="utf-8").splitlines()
    given.out.write_text("\n".join(found) + "\n", encoding="utf-8")
    if given.against is None:
        return 0
    before, after = (
        dict(line.rsplit("\t", 1) for line in file.read_text(encoding="utf-8").splitlines())
        for file in (given.against, given.out)
    )
    differing = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
    print(*differing, f"{len(differing)} of {len(before)} numbers differ", sep="\n")
    return int(bool(differing))


if __name__ == "__main__":
    sys.exit(main())
