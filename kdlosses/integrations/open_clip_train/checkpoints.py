"""Checkpoints of a student with its loss: made to fit when resuming, and freed of the loss for everybody else."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from kdlosses.integrations.attach import NAME, without_loss
from kdlosses.integrations.open_clip_train.errors import ConfigError
from kdlosses.integrations.verify import damage_in, not_finite, without_numbers

WRAPPED = "module."
T = TypeVar("T")


def checked_read(path: str, read: Callable[[], T], flag: str = "") -> T:
    """What ``read`` makes of a file of weights, once the file's checksums have been compared.

    Raises:
        ConfigError: the file is damaged, or no such file.
    """
    try:
        damage = damage_in(path) if Path(path).is_file() else None  # others are downloaded, or missing
        if damage is None:
            return read()
    except Exception as error:  # for a file that is not a checkpoint torch raises whatever its bytes lead to
        words = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ConfigError(f"{flag}{path} cannot be read: {words}") from error
    raise ConfigError(f"{flag}{path} is damaged: {damage}; copy or download it again, or take another")


def check_finite(state: Mapping[str, Any], what: str) -> None:
    """Refuse NaN and infinity.

    Raises:
        ConfigError: naming the tensors.
    """
    wrong = without_numbers(state.items())
    if wrong:
        raise ConfigError(f"{what} has {not_finite(wrong)}; take weights from before they appeared")


def fit(checkpoint: dict[str, Any], loss: nn.Module, distributed: bool) -> tuple[dict[str, Any], list[str]]:
    """The checkpoint as the student with ``loss`` attached can load it, and which parameters it lacked.

    Args:
        checkpoint: the trainer's own, or a model's state dict.
        loss: gives its present parameters where the checkpoint has none.
        distributed: whether the student is wrapped in DDP.

    Raises:
        ConfigError: the checkpoint has the parameters of another loss.
    """
    training = "epoch" in checkpoint
    state = bare_names(checkpoint["state_dict"] if training else checkpoint)
    own = {f"{NAME}.{name}": value for name, value in loss.state_dict().items()}
    kept = without_loss(state)
    there = {name: value for name, value in state.items() if name not in kept}
    if there:
        _check_same(own, there)
        own = there
    fresh = [] if there else list(own)
    state = {(WRAPPED if distributed else "") + name: value for name, value in (kept | own).items()}
    if not training:
        return state, fresh
    checkpoint = checkpoint | {"state_dict": state}
    if fresh and "optimizer" in checkpoint:
        checkpoint["optimizer"] = _with_room(checkpoint["optimizer"], loss)
    return checkpoint, fresh


def bare_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``state`` without DDP's prefix."""
    return {name.removeprefix(WRAPPED): value for name, value in state.items()}


def _check_same(own: Mapping[str, Tensor], there: Mapping[str, Tensor]) -> None:
    for name in dict.fromkeys([*own, *there]):
        shapes = [list(state[name].shape) if name in state else "absent" for state in (there, own)]
        if shapes[0] != shapes[1]:
            raise ConfigError(
                f"--resume: the checkpoint was trained with another loss or teacher: {name} is {shapes[0]} there and "
                f"{shapes[1]} here; resume with that run's --kd-config file and teacher, or start over from its "
                "exported student with --pretrained"
            )


def _with_room(saved: dict[str, Any], loss: nn.Module) -> dict[str, Any]:
    """An optimizer's state with places for the parameters of ``loss``, which it has not seen yet.

    A saved group lists numbers in the order of its parameters, so the optimizer in use shows where ours belong. Where
    it differs in other ways too, that is left for torch to say.
    """
    own = {id(parameter) for parameter in loss.parameters()}
    live = _optimizer_of(own)
    if live is None or len(live.param_groups) != len(saved["param_groups"]):
        return saved
    numbers = count(sum(len(group["params"]) for group in saved["param_groups"]))
    groups = []
    for group, now in zip(saved["param_groups"], live.param_groups, strict=True):
        known = iter(group["params"])
        places = [next(numbers) if id(parameter) in own else next(known, None) for parameter in now["params"]]
        groups.append(group | {"params": [number for number in places if number is not None] + list(known)})
    return saved | {"param_groups": groups}


def _optimizer_of(own: set[int]) -> Optimizer | None:
    # The trainer keeps it in a local variable.
    for thing in gc.get_objects():
        # Not isinstance(): that asks for an object's __class__, at which lazy modules begin to load.
        if issubclass(type(thing), Optimizer) and own & {id(p) for g in thing.param_groups for p in g["params"]}:
            found: Optimizer = thing
            return found
    return None


def export(checkpoint: str, out: str) -> int:
    """Write the student of ``checkpoint`` alone, as a state dict that open_clip loads; returns its number of tensors.

    Raises:
        ConfigError: the checkpoint is damaged, cannot be read, holds no model or one that is not finite, or there is no
            folder to write to.
    """
    if not Path(out).parent.is_dir():
        raise ConfigError(f"--export: there is no folder {Path(out).parent}; make it first")
    content = checked_read(
        checkpoint, lambda: torch.load(checkpoint, map_location="cpu", weights_only=True), "--export: "
    )
    state = content.get("state_dict", content) if isinstance(content, dict) else {}
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ConfigError(
            f"--export: {checkpoint} holds no model; name a checkpoint such as logs/NAME/checkpoints/epoch_1.pt"
        )
    check_finite(bare_names(without_loss(state)), f"--export: the student of {checkpoint}")
    return save_student(state, Path(out))


def save_student(state: Mapping[str, Tensor], out: Path) -> int:
    """Write ``state`` without the loss's entries and DDP's prefix; returns the number of tensors."""
    student = bare_names(without_loss(state))
    partial = out.with_name(f"{out.name}.partial")
    torch.save(student, partial)
    os.replace(partial, out)
    return len(student)
