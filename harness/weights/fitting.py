"""Putting a checkpoint into a model: every entry has its place and every place its entry, or nothing is loaded.

Only what open_clip's own loader evens out is evened out here too: see `harness.weights.adapting`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import open_clip
from torch import Tensor, nn

from harness.errors import UserError
from harness.weights.adapting import adapt, say_adapted
from harness.weights.reading import Checkpoint, read_checkpoint
from harness.weights.renames import apply_rules

_SHOWN = 3
_BIG_VISION = (".npz", ".npy")


@dataclass(frozen=True)
class Loaded:
    """What was put into a model.

    Args:
        checkpoint: what the file said; None for Google's own array files, which say nothing.
        renamed: the rules that had something to do, in words.
    """

    checkpoint: Checkpoint | None
    renamed: list[str]


def load_into(model: nn.Module, path: Path, name: str) -> Loaded:
    """Read a checkpoint file and put its weights into a model.

    Args:
        model: an open_clip model.
        path: the file; see `read_checkpoint`. Google's SigLIP arrays (.npz) are read by open_clip.
        name: of the model, for messages.

    Raises:
        UserError: it cannot be read, or does not fit: what is missing, left over, of another shape, or no weight is
            listed.
    """
    if Path(path).suffix in _BIG_VISION:
        return _load_arrays(model, Path(path), name)
    checkpoint = read_checkpoint(path)
    state, renamed = apply_rules(checkpoint.state, model)
    shapes = {key: value.shape for key, value in state.items()}
    state = adapt(state, model)
    complaints = differences(state, model.state_dict()) + _no_weights(state, model.state_dict())
    if complaints:
        raise UserError(
            f"checkpoint {path} does not fit model {name}: {'; '.join(complaints)}; check that it is this model's, or "
            "describe its model in a config (clipkd import --config FILE, or `config:` in a recipe)"
        )
    model.load_state_dict(state, strict=True)
    say_adapted(path, shapes, model)
    return Loaded(checkpoint, renamed)


def refuse_nonfinite(model: nn.Module, name: str) -> None:
    """Refuse a model whose weights would make every embedding NaN.

    Args:
        model: with its weights.
        name: of the model, for messages.

    Raises:
        UserError: naming the first of them.
    """
    state: dict[str, Tensor] = model.state_dict()
    broken = [key for key, value in state.items() if value.is_floating_point() and not is_finite(value)]
    if broken:
        raise UserError(
            f"the weights of model {name} hold NaN or infinite values: {_count(broken)} not finite: {_first(broken)}; "
            "take weights from before they became so, such as an earlier checkpoint"
        )


def is_finite(value: Tensor) -> bool:
    """Whether all of a tensor's values are; 17 times as fast on a CPU as `torch.isfinite`, which makes temporaries."""
    if not value.numel() or not value.is_floating_point():
        return bool(value.isfinite().all())
    # Minimum and maximum are NaN where any value is; they are not there for eight bits.
    bounds = (value.float() if value.element_size() == 1 else value).aminmax()
    return all(bool(bound.isfinite()) for bound in bounds)


def differences(state: dict[str, Tensor], wanted: dict[str, Tensor]) -> list[str]:
    """How a state dict departs from the wanted one, a phrase for each kind; none when it fits."""
    missing = [name for name in wanted if name not in state]
    extra = [name for name in state if name not in wanted]
    reshaped = [
        f"{name} ({_size(state[name])} in the file, {_size(value)} in the model)"
        for name, value in wanted.items()
        if name in state and state[name].shape != value.shape
    ]
    kinds = (("missing from it", missing), ("in it but not in the model", extra), ("of another shape", reshaped))
    return [f"{_count(names)} {words}: {_first(names)}" for words, names in kinds if names]


def _no_weights(state: dict[str, Tensor], wanted: dict[str, Tensor]) -> list[str]:
    """Values that torch would copy silently although they are not weights, a phrase for each kind."""
    floats = [name for name, value in wanted.items() if name in state and value.is_floating_point()]
    others = [f"{name} ({state[name].dtype})" for name in floats if not state[name].is_floating_point()]
    broken = [name for name in floats if not is_finite(state[name])]
    kinds = (("of another kind of number", others), ("not finite", broken))
    return [f"{_count(names)} {words}: {_first(names)}" for words, names in kinds if names]


def _count(names: Sequence[str]) -> str:
    return "1 entry is" if len(names) == 1 else f"{len(names)} entries are"


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def _size(value: Tensor) -> str:
    return "x".join(map(str, value.shape)) or "a number"


def _load_arrays(model: nn.Module, path: Path, name: str) -> Loaded:
    if not path.is_file():
        raise UserError(f"checkpoint {path} is missing: there is no such file")
    try:
        open_clip.load_checkpoint(model, str(path))
    except Exception as error:  # big_vision's arrays are looked up by name in open_clip, with any error as a result
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{path} is not a SigLIP checkpoint of big_vision that fits model {name} ({type(error).__name__}: {reason})"
        ) from error
    return Loaded(None, [])
