"""Reading a checkpoint, whatever of the usual layouts it has, into plain names and tensors."""

from __future__ import annotations

import contextlib
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from harness.checkpoint import list_checkpoints
from harness.errors import UserError
from harness.weights.archives import archive_records, load_archive
from harness.weights.checksums import Damaged, FileRecord, check
from harness.weights.pickles import reading_numpy, refusal
from harness.weights.tensor_files import load_tensors, tensor_records

# What DistributedDataParallel, torch.compile, FSDP and activation checkpointing put before the names of all that they
# wrap, be it the model or one of its blocks.
_WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
_ZIP, _PICKLE, _LFS = b"PK\x03\x04", b"\x80", b"version https://git-lfs"
# The number that torch.save's older format begins with, as every pickle protocol from 2 on writes it.
_MAGIC = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."


@dataclass(frozen=True)
class Checkpoint:
    """The weights of a checkpoint file.

    Args:
        path: the file.
        state: by name, without the words of wrappers.
        epoch: of a training checkpoint that tells it.
        step: likewise.
        run: the run's name, likewise.
        recipe: of a checkpoint of clipkd, as YAML.
    """

    path: Path
    state: dict[str, Tensor]
    epoch: int | None = None
    step: int | None = None
    run: str | None = None
    recipe: str | None = None


def read_checkpoint(path: Path) -> Checkpoint:
    """Read weights from a safetensors file or a `torch.save`d one: a bare state dict, or one under ``state_dict``.

    Nothing in a pickle is run: only tensors and plain values are made of it.

    Raises:
        UserError: the file is missing, incomplete or not a checkpoint, or its pickle holds something else.
    """
    path = Path(path)
    content = _open(path)
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        return Checkpoint(path, _tensors(path, content["state_dict"]), **_training_state(content))
    return Checkpoint(path, _tensors(path, content))


def file_records(path: Path) -> list[FileRecord]:
    """The records of a file of weights with their checksums, whichever of the two formats it has; none without.

    Raises:
        Damaged: its tables contradict each other.
    """
    return archive_records(path) or tensor_records(path)


def _open(path: Path) -> Any:
    kind = _kind(path)
    try:
        if kind == "safetensors":
            return load_tensors(path)
        with reading_numpy():
            # Mapped: of a training checkpoint two thirds are the optimizer's, and are never read.
            return load_archive(path, mmap=kind == "zip")
    except Damaged as damage:
        raise Damaged(path, damage.reason, _way_on(path)) from damage
    except pickle.UnpicklingError as error:
        if "pickle data was truncated" in str(error):
            raise _incomplete(path, str(error)) from error
        raise refusal(path, error) from error
    except (RuntimeError, EOFError, OSError, ValueError, TypeError, KeyError, IndexError, SafetensorError) as error:
        raise _incomplete(path, str(error)) from error


def _way_on(path: Path) -> str:
    """What to do about a damaged file: of a run's checkpoints, the newest whole one before it is offered."""
    path = path.resolve()
    found = list_checkpoints(path.parent)
    before = found[: found.index(path)] if path in found else []
    for other in reversed(before):
        with contextlib.suppress(Damaged, OSError):
            check(other, archive_records(other))
            return f"take the checkpoint before it, {other}, which is whole"
    return "copy or download it again, or restore a backup"


def _incomplete(path: Path, reason: str) -> UserError:
    return UserError(
        f"checkpoint {path} cannot be read ({' '.join(reason.split())[:150] or 'it ends too early'}); it may be "
        "incomplete or damaged: copy or download it again"
    )


def _kind(path: Path) -> str:
    """What the file's first bytes say it is: ``"safetensors"``, torch's ``"zip"``, or its older ``"pickle"``.

    Raises:
        UserError: none of them.
    """
    if path.is_dir():
        raise UserError(
            f"{path} is a folder where a checkpoint file is needed; an open_clip folder is a model of its own"
        )
    if not path.is_file():
        raise UserError(f"checkpoint {path} is missing: there is no such file")
    with path.open("rb") as file:
        head = file.read(64)
    if path.suffix == ".safetensors" or head[8:9] == b"{":
        return "safetensors"
    if head.startswith(_ZIP):
        return _zip_kind(path)
    if head.startswith(_PICKLE) and _MAGIC in head:
        return "pickle"
    what = "is empty" if not head else "is a git-lfs pointer, not the file itself" if head.startswith(_LFS) else ""
    what = "is a pickle, but not one of torch.save" if head.startswith(_PICKLE) else what
    raise UserError(
        f"{path} {what or 'is not a checkpoint'}: expected a safetensors file or one that torch.save wrote; copy or "
        "download it again"
    )


def _zip_kind(path: Path) -> str:
    if not zipfile.is_zipfile(path):
        raise _incomplete(path, "the end of its archive is missing")
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise _incomplete(path, str(error)) from error
    if any(name.endswith("/constants.pkl") for name in members):
        raise UserError(
            f"checkpoint {path} is a TorchScript program, as OpenAI's own files are, and not weights alone; take the "
            "same weights by their open_clip tag (openai), or save the state_dict() of the module it holds"
        )
    if not any(name.endswith("data.pkl") for name in members):
        raise UserError(f"{path} is an archive, but not one that torch.save wrote; unpack it and name the file inside")
    return "zip"


def _tensors(path: Path, found: Any) -> dict[str, Tensor]:
    """Names and tensors; buffers' bookkeeping of torch (`_metadata`) is an attribute and falls away by itself.

    Raises:
        UserError: it is something else.
    """
    if not isinstance(found, Mapping) or not found:
        raise UserError(f"checkpoint {path} holds no weights: expected names and tensors, got {_words(found)}")
    others = [str(name) for name, value in found.items() if not isinstance(value, Tensor)]
    if others:
        raise UserError(
            f"{path} is not a state dict: {', '.join(others[:3])} ({len(others)} of {len(found)} entries) are "
            "not tensors; expected weights at the top or under `state_dict`; save them with torch.save(weights, FILE)"
        )
    odd = [str(name) for name, value in found.items() if not (isinstance(name, str) and _is_plain(value))]
    if odd:
        raise UserError(
            f"{path} is not a state dict: {', '.join(odd[:3])} ({len(odd)} of {len(found)} entries) have no "
            "text as their name, or a tensor that is sparse, quantized or without values (meta); save dense ones"
        )
    return unwrapped(found, path)


def unwrapped(found: Mapping[str, Tensor], path: Path | str) -> dict[str, Tensor]:
    """Entries without the words of wrappers in their names, wherever they stand.

    Args:
        found: the entries.
        path: their file, for the message.

    Raises:
        UserError: two names become one.
    """
    state: dict[str, Tensor] = {}
    for name, value in found.items():
        *before, last = name.split(".")
        plain = ".".join([*(word for word in before if word not in _WRAPPERS), last])
        if plain in state:
            raise UserError(
                f"{path} holds {plain} twice, once as {name}; expected a state dict of one model: save it again with "
                "either the names of the wrapped module or those of the plain one"
            )
        state[plain] = value
    return state


def _is_plain(value: Tensor) -> bool:
    return value.layout is torch.strided and not value.is_quantized and not value.is_meta


def _words(found: Any) -> str:
    return "an empty dict" if found == {} else f"a {type(found).__name__}"


def _training_state(content: Mapping[str, Any]) -> dict[str, Any]:
    """Epoch, step, run name and recipe of a training checkpoint, as far as they are there and of the expected type."""
    kinds = {"epoch": int, "step": int, "name": str, "recipe": str}
    found = {key: content[key] for key, kind in kinds.items() if isinstance(content.get(key), kind)}
    return {"run" if key == "name" else key: value for key, value in found.items()}
