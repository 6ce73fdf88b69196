"""Jobs in which the processes do not fit together: each gives the message of the ValueError on this rank."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

import kdlosses
from tests.distributed.cases import MIXED, multi_teacher, of_teachers, part
from tests.distributed.world import Jobs
from tests.running import build

PLAIN = [
    term for term in kdlosses.available_terms(without_options=True) if term != "afd"
]  # those that the released code has for any width


def message(loss: torch.nn.Module, inputs: dict[str, Any]) -> str:
    try:
        loss(**inputs)
    except ValueError as error:
        return str(error)
    return "no error"


def _spoiled(change: Any, rank: int, size: int, odd: int = 1, **keywords: Any) -> str:
    """Rank `odd` calls with inputs that `change` has changed, the others as they should."""
    inputs = part(MIXED.inputs(), rank, size)
    return message(build("clip_kd", MIXED, **keywords), change(inputs) if rank == odd else inputs)


def _other_weights(rank: int, size: int) -> str:
    weights = {"contrastive": 1.0, "crd": 2.0 if rank else 1.0}
    return message(build("clip_kd", MIXED, weights=weights), part(MIXED.inputs(), rank, size))


def _other_options(rank: int, size: int) -> str:
    options = {"affinity": {"teacher_scale": 50.0 if rank else None}}
    loss = build("clip_kd", MIXED, weights={"affinity": 1.0}, options=options)
    return message(loss, part(MIXED.inputs(), rank, size))


def _ids_of_one(rank: int, size: int) -> str:
    inputs = part(MIXED.inputs(), rank, size)
    ids = {} if rank else {"group_ids": torch.arange(len(inputs["image_features"]))}
    return message(build("crd", MIXED), inputs | ids)


def _frozen(rank: int, size: int) -> str:
    loss = build("icl", MIXED)
    loss.cross_logit_scale.requires_grad_(rank == 0)
    return message(loss, part(MIXED.inputs(), rank, size))


def _no_grad(rank: int, size: int) -> str:
    with torch.set_grad_enabled(rank == 0):
        return message(build("crd", MIXED), part(MIXED.inputs(), rank, size))


def _one_teacher_less(rank: int, size: int) -> str:
    inputs = part(of_teachers(), rank, size)
    return message(multi_teacher(), {k: v for k, v in inputs.items() if not (rank and k.endswith("[2]"))})


def _unequal(rank: int, size: int) -> str:
    loss = build("icl", MIXED)
    if rank == size - 1:
        loss.text_proj.weight.data[0, 0] += 1e-9
    first = message(loss, part(MIXED.inputs(), rank, size))
    assert message(loss, part(MIXED.inputs(), rank, size)) == first, "a second call must not let it pass"
    kdlosses.share_parameters(loss)
    assert message(loss, part(MIXED.inputs(), rank, size)) == "no error"
    return first


def _shorter(inputs: dict[str, Any]) -> dict[str, Any]:
    return {key: value[:-1] if value.ndim else value for key, value in inputs.items()}


def _with(key: str, value: Any) -> Any:
    return lambda inputs: inputs | {key: value(inputs[key]) if callable(value) else value}


def _nan(value: torch.Tensor) -> torch.Tensor:
    value = value.clone()
    value[0, 0] = float("nan")
    return value


JOBS: Jobs = {
    "uneven": partial(_spoiled, _shorter),
    "dtype": partial(_spoiled, _with("text_features", lambda x: x.float())),
    "gradient": partial(_spoiled, _with("image_features", lambda x: x.clone().requires_grad_())),
    "masked": partial(_spoiled, lambda inputs: inputs | {"masked_image_features": inputs["image_features"]}),
    "width": partial(_spoiled, _with("image_features", lambda x: x[:, 1:]), odd=0),
    "non-finite": partial(_spoiled, _with("dist_text_features", _nan), check=True),
    "missing": partial(_spoiled, _with("dist_image_features", None), odd=0),
    "type": partial(_spoiled, _with("text_features", "words")),
    "scale": partial(_spoiled, _with("logit_scale", object())),
    "weights": _other_weights,
    "options": _other_options,
    "ids": _ids_of_one,
    "frozen": _frozen,
    "grad-mode": _no_grad,
    "teachers": _one_teacher_less,
    "parameters": _unequal,
}
