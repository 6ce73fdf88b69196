"""What the processes of a world do, by name; every function here runs on every rank."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import kdlosses
from kdlosses.distributed import columns
from kdlosses.distributed.shard import place
from tests.backends.cases import EVERY
from tests.distributed import bank, clip_kd, foreign, guarded, refusals, siglip, training
from tests.distributed.cases import (
    FAST,
    HALF,
    MIXED,
    SPLITS,
    Split,
    captioned,
    matryoshka,
    multi_teacher,
    of_captions,
    of_teachers,
    part,
)
from tests.distributed.world import Jobs
from tests.running import Averaged, Outcome, build, run


def jobs(size: int, slow: bool) -> Jobs:
    """All jobs for a world of this size, in the order in which they are done; the full tier adds a slow world."""
    warnings.filterwarnings("ignore", message="mfd is combined")
    warnings.filterwarnings("error", message=".*torch.distributed.*deprecated")
    # Last, so first asked: a loss's guard then looks for no optimizer among all of Python's objects.
    warnings.filterwarnings("ignore", category=kdlosses.UntrainedParametersWarning)
    splits = {name: split for name, split in SPLITS.items() if (name not in FAST) == slow} | ({} if slow else HALF)
    found: Jobs = {name: partial(_split, split) for name, split in splits.items() if split.size == size}
    if slow:
        return found | ({"compiled": _compiled} if size == 2 else {})
    found |= {f"refusal-{name}": job for name, job in refusals.JOBS.items()}
    found |= {name: job for name, job in _MORE.items() if size == 2 or name in _ALSO_FOUR}
    if size == 2:
        found |= bank.JOBS | foreign.JOBS
        found |= {f"guard-{name}": job for name, job in guarded.JOBS.items()}
        found |= {f"clip-kd-{name}": job for name, job in clip_kd.JOBS.items()}
    return found | {f"training-{name}": job for name, job in training.JOBS.items()}


def _split(split: Split, rank: int, size: int) -> Outcome:
    return run(split.loss(), part(split.inputs(), rank, size))


def _teachers(rank: int, size: int, **keywords: Any) -> Outcome:
    return run(multi_teacher(**keywords), part(of_teachers(), rank, size))


def _prefixes(rank: int, size: int) -> Outcome:
    return run(matryoshka(build("clip_kd", MIXED)), part(MIXED.inputs(), rank, size))


def _captions(rank: int, size: int) -> Outcome:
    return run(captioned(), part(of_captions(), rank, size))


def _standardized(rank: int, size: int) -> Outcome:
    """Against the statistics of two batches before."""
    loss = build("fd", MIXED, standardize="running")
    for seed in (11, 12):
        loss(**part(MIXED.with_(seed=seed).inputs(), rank, size))
    return run(loss, part(MIXED.inputs(), rank, size))


def _dropping(rank: int, size: int) -> Outcome:
    """Teachers dropped by draws of this rank's own."""
    loss = multi_teacher(weights={"fd": 20.0}, teacher_dropping=0.5)
    with torch.random.fork_rng():
        torch.manual_seed(rank)
        return run(loss, part(of_teachers(), rank, size))


def _terms(rank: int, size: int) -> dict[str, torch.Tensor]:
    """The terms, their sum, and the sum without a graph."""
    loss, inputs = build("clip_kd", MIXED), part(MIXED.inputs(), rank, size)
    terms = loss(**inputs, output_dict=True)
    with torch.no_grad():
        silent = loss(**inputs)
    assert not silent.requires_grad
    return {"scalar": loss(**inputs), "silent": silent} | terms


def _one_term(rank: int, size: int) -> torch.Tensor:
    """The gradient of one term alone, of a dict's."""
    loss, inputs = build("clip_kd", MIXED), part(MIXED.inputs(), rank, size)
    image = inputs["image_features"].requires_grad_()
    loss(**inputs, output_dict=True)["crd_loss"].backward()
    return image.grad


def _by_pair(rank: int, size: int) -> tuple[torch.Tensor, Outcome]:
    """Each pair's value, of these rows, and the gradients of this process's mean, whose value no other has."""
    loss, inputs = build("clip_kd", MIXED, weights=dict(EVERY), reduction="none"), part(MIXED.inputs(), rank, size)
    outcome = run(Averaged(loss), inputs)
    return loss(**inputs).detach(), Outcome(torch.zeros(()), outcome.grads)


GROUPED = {"contrastive": 1.0, "icl": 2.0, "siglip": 0.5, "crd": 1.0}


def group_ids() -> dict[str, torch.Tensor]:
    """Some groups are on one process, some on several, one is a row alone."""
    return {"group_ids": torch.tensor([4, 9, 4, 1, 9, 4, 9, 2])}


def _grouped(rank: int, size: int) -> Outcome:
    options = {"contrastive": {"label_smoothing": 0.2}}
    loss = build("clip_kd", MIXED, weights=GROUPED, options=options)
    return run(loss, part(MIXED.inputs() | group_ids(), rank, size))


def _local(rank: int, size: int) -> Outcome:
    return run(build("clip_kd", MIXED, group=None), part(MIXED.inputs(), rank, size))


def _groups(rank: int, size: int) -> list[torch.Tensor]:
    """The value within pairs of ranks, and within a group of this rank alone."""
    inputs = part(MIXED.inputs(), rank, size)
    pairs = [dist.new_group([first, first + 1]) for first in range(0, size, 2)]
    singles = [dist.new_group([one]) for one in range(size)]
    return [build("clip_kd", MIXED, group=group)(**inputs).detach() for group in (pairs[rank // 2], singles[rank])]


def _unusual(rank: int, size: int) -> list[torch.Tensor]:
    """The value with a teacher from inference mode, scales of shape [1], strided rows, autocast, inference mode."""
    inputs = part(MIXED.inputs(torch.float32), rank, size)
    loss = build("clip_kd", MIXED, dtype=torch.float32)
    with torch.inference_mode():
        inference = inputs | {key: value.clone() for key, value in inputs.items() if key.startswith("dist_")}
    shaped = {key: value.reshape(1) if value.ndim == 0 else value for key, value in inputs.items()}
    strided = {key: value.T.contiguous().T if value.ndim == 2 else value for key, value in inputs.items()}
    values = [loss(**given) for given in (inputs, inference, shaped, strided)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        values.append(loss(**inputs))
    with torch.inference_mode():
        values.append(loss(**inference).clone())
    student = inference["image_features"].requires_grad_()
    loss(**inference).backward()
    assert student.grad is not None
    return [value.detach() for value in values]


def _sixteen_bit_sums(rank: int, size: int) -> torch.Tensor:
    """The gradient of a bfloat16 row to which rank 0 gives 1 and each other 2^-9, a quarter of the spacing there."""
    row = torch.ones(1, 8, dtype=torch.bfloat16, requires_grad=True)
    (rows,) = columns.gather(place("auto"), [row])
    (rows * (1.0 if rank == 0 else 2.0**-9)).sum().backward()
    return row.grad


def _mixed_dtypes(rank: int, size: int) -> list[torch.Tensor]:
    """What a gather of rows of 6 and of 16 bytes brings."""
    half, double = torch.full((1, 3), rank + 1.0).bfloat16(), torch.full((1, 2), rank + 0.1, dtype=torch.float64)
    return [rows.clone() for rows in columns.gather(place("auto"), [half, double])]  # they share their memory


def _compiled(rank: int, size: int) -> Outcome:
    loss = torch.compile(build("clip_kd", MIXED), backend="eager")
    outcome = run(loss, part(MIXED.inputs(), rank, size))
    return Outcome(outcome.value, {key.replace("_orig_mod.", ""): grad for key, grad in outcome.grads.items()})


def _collectives(rank: int, size: int) -> dict[str, list[str]]:
    """The collectives of the second forward and backward pass, by loss; the first also compares parameters."""
    found = {}
    losses: dict[str, Callable[[], nn.Module]] = {
        name: partial(build, name, MIXED) for name in kdlosses.available_losses(without_options=True)
    }
    for name, make in losses.items():
        loss, inputs = make(), part(MIXED.inputs(), rank, size)
        run(loss, inputs)
        found[name] = _watched(lambda loss=loss, inputs=inputs: run(loss, inputs))
    several, inputs = multi_teacher(), part(of_teachers(), rank, size)
    run(several, inputs)
    found["several teachers"] = _watched(lambda: run(several, inputs))
    return found


def _watched(call: Callable[[], object]) -> list[str]:
    # As torch 2.6 calls them, and newer ones.
    called = {"all_gather_into_tensor": "all_gather", "reduce_scatter_tensor": "reduce_scatter"}
    called |= {"all_gather_single": "all_gather", "reduce_scatter_single": "reduce_scatter"}
    called |= {name: name for name in ("all_reduce", "broadcast", "all_gather_object")}
    names = [name for name in called if hasattr(dist, name)]
    seen: list[str] = []
    real = {name: getattr(dist, name) for name in names}

    def watch(name: str, *args: Any, **kwargs: Any) -> Any:
        seen.append(called[name])
        return real[name](*args, **kwargs)

    for name in names:
        setattr(dist, name, partial(watch, name))
    call()
    for name in names:
        setattr(dist, name, real[name])
    return seen


def _module_in_ddp(rank: int, size: int) -> Outcome:
    loss = DistributedDataParallel(build("clip_kd", MIXED))
    outcome = run(loss, part(MIXED.inputs(), rank, size))
    return Outcome(outcome.value, {key.replace("module.", ""): grad for key, grad in outcome.grads.items()})


_MORE: Jobs = {
    "terms": _terms,
    "one-term": _one_term,
    "by-pair": _by_pair,
    "grouped": _grouped,
    "local": _local,
    "groups": _groups,
    "unusual": _unusual,
    "collectives": _collectives,
    "module-in-ddp": _module_in_ddp,
    "several-teachers-paper": _teachers,
    "several-teachers-released": partial(_teachers, variant="released", weights=dict.fromkeys(refusals.PLAIN, 1.0)),
    "prefixes": _prefixes,
    "captions": _captions,
    "dropping": _dropping,
    "standardized": _standardized,
    "sixteen-bit-sums": _sixteen_bit_sums,
    "mixed-dtypes": _mixed_dtypes,
    "open-clips-siglip": siglip.job,
}
_ALSO_FOUR = {"grouped", "sixteen-bit-sums", "groups", "open-clips-siglip", "several-teachers-paper", "module-in-ddp"}
