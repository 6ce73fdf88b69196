"""Checkpoints: whole or absent, never half-written; plain tensors only, so that safe loading reads them."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import torch

from harness.files import named

_NAME = re.compile(r"step-(\d{7,})\.pt$")


def save_checkpoint(folder: Path, state: dict[str, Any], step: int, keep: int) -> Path:
    """Write ``step-<step>.pt`` under a temporary name, flush, rename; point ``latest.pt`` at it; drop older ones.

    Killed at any moment, or with the machine's power gone, it leaves a ``latest.pt`` that can be loaded.

    Args:
        folder: the run's checkpoint folder.
        state: tensors, numbers, texts and containers of them; the student under ``state_dict``, as open_clip expects.
        step: optimizer steps taken.
        keep: how many checkpoints stay.
    """
    path = checkpoint_path(folder, step)
    write_checkpoint(path, state)
    _point_latest(folder, path)
    # The names too, before anything that they replace is gone; some network file systems cannot.
    with suppress(OSError):
        flush_to_disk(folder)
    _prune(folder, path, keep)
    return path


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a state atomically: under a temporary name, flushed to the disk, renamed; its folder is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    try:
        with named(path), temporary.open("wb") as file:
            _save(state, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def flush_to_disk(path: Path) -> None:
    """Have a file's content, or a folder's names, written to the disk itself."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def checkpoint_path(folder: Path, step: int) -> Path:
    """Path of a step's checkpoint."""
    return folder / f"step-{step:07d}.pt"


def list_checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints of a folder, oldest first."""
    found = {int(match[1]): path for path in folder.glob("step-*.pt") if (match := _NAME.search(path.name))}
    return [found[step] for step in sorted(found)]


class _ErrorKeepingFile:
    """Binary file that keeps the error of a failed write."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self._file.flush()


def _save(state: dict[str, Any], file: BinaryIO) -> None:
    target = _ErrorKeepingFile(file)
    try:
        torch.save(state, target)  # type: ignore[arg-type]  # it calls write and flush alone
    except RuntimeError as error:
        # torch.save turns a full disk into an internal assertion about file positions.
        raise (target.error or error) from error


def _prune(folder: Path, newest: Path, keep: int) -> None:
    # A later one is what a run that went on from an earlier checkpoint could not read.
    found = list_checkpoints(folder)
    earlier = found[: found.index(newest) + 1]
    # And what a kill has cut short, at a step that may never be saved again.
    for old in {*found} - {*earlier[-keep:]} | {*folder.glob("step-*.tmp")}:
        old.unlink()


def _point_latest(folder: Path, path: Path) -> None:
    link = folder / "latest.tmp"
    link.unlink(missing_ok=True)
    link.symlink_to(path.name)
    link.replace(folder / "latest.pt")
