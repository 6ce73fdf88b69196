"""Allow-list of pickles: tensors, plain values, and numpy's numbers, which are replaced by inert stand-ins."""

from __future__ import annotations

import contextlib
import json
import pickle
import re
import shlex
import zipfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch

from harness.errors import UserError

# What numpy 1 and numpy 2 pickle their scalars and arrays with.
_NUMPY = (
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct",
    "numpy.ndarray",
    "numpy.dtype",
)


class _Inert:
    """Stands where the file has something of numpy's, and does nothing: learning rates and random states are not read.

    numpy's own functions stay out of it: told of a type that is not there, they would read memory that is not theirs.
    """

    def __init__(self, *args: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def _stand_in(path: str) -> type[_Inert]:
    """A class that torch takes for numpy's: it goes by module and name, in every version."""
    module, _, name = path.rpartition(".")
    return type(name, (_Inert,), {"__module__": module})


_STAND_INS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [_stand_in(path) for path in _NUMPY]


def reading_numpy() -> AbstractContextManager[None]:
    """Let ``torch.load(weights_only=True)`` pass over numpy's values; everything else stays as forbidden as it was."""
    return torch.serialization.safe_globals(_STAND_INS)


def refusal(path: Path, error: pickle.UnpicklingError) -> UserError:
    """Why a pickle is not opened, by what it names, and a safe way on."""
    return UserError(
        f"checkpoint {path} {_reason(path, str(error))}, so it stays closed; if you trust where it is from, rewrite it "
        "once, in an environment that holds nothing of value: "
        f"python -c {shlex.quote(_rewriting(path))}"
    )


def _reason(path: Path, message: str) -> str:
    if "Unsupported operand" in message:
        return "is written in a pickle protocol that torch's safe loader does not read (it reads torch.save's own, 2)"
    found = _forbidden(path, message)
    names = f"it names {', '.join(found[:3])}{f' and {len(found) - 3} more' if len(found) > 3 else ''}"
    what = names if found else f"torch's safe loader refuses it ({_first_line(message)})"
    return f"holds more than tensors and numbers: {what}, which could run code when it is opened"


def _rewriting(path: Path) -> str:
    """Python that runs whatever the file holds, be it a dict or a whole module, and keeps its weights."""
    file = json.dumps(str(path), ensure_ascii=False)  # a literal of Python too, without the shell's single quotes
    return (
        f'import torch; c = torch.load({file}, map_location="cpu", weights_only=False); '
        'c = c.state_dict() if hasattr(c, "state_dict") else c.get("state_dict", c); torch.save(c, "weights.pt")'
    )


def _forbidden(path: Path, message: str) -> list[str]:
    """What the file names and must not, as torch tells it: the whole list for its zip format, else the first one."""
    # The list is not available for a file whose later parts torch cannot scan.
    with contextlib.suppress(pickle.UnpicklingError):
        if zipfile.is_zipfile(path):
            return sorted(set(torch.serialization.get_unsafe_globals_in_checkpoint(path)) - set(_NUMPY))
    return re.findall(r"GLOBAL ([\w.]+)", message)[:1]


def _first_line(message: str) -> str:
    reason = message.partition("WeightsUnpickler error:")[2] or message
    return " ".join(reason.split())[:120]
