"""Run folders: what is written beside a run so that it can be understood and reproduced."""

from __future__ import annotations

import logging
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import kdlosses
from harness.config import Recipe, dump_recipe
from harness.errors import UserError
from harness.files import Unreadable, vanished, write_json, write_text
from harness.locks import hold_lock
from harness.records.reading import read_values
from harness.records.run_folder import About

logger = logging.getLogger(__name__)

DONE = "summary.json"
LOCK = "run.lock"
_PACKAGES = ("torch", "torchvision", "open_clip_torch", "clip_benchmark", "webdataset", "timm", "numpy")


def check_run_folder(out: Path) -> None:
    """Refuse an output folder that a run must not write into.

    Raises:
        UserError: when ``out`` holds a finished run, or files that are not a run's.
    """
    if (out / DONE).exists():
        raise UserError(f"{out} already holds a finished run; choose another --out or delete that folder first")
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file, but the run needs a folder there; choose another --out")
    # A run killed while it wrote its first file leaves that file's temporary name alone.
    strangers = [path for path in out.iterdir() if path.suffix != ".tmp" and path.name != LOCK] if out.is_dir() else []
    if strangers and not (out / "recipe.yaml").exists():
        raise UserError(f"{out} holds files that are not a clipkd run; choose an empty or new folder as --out")


@contextmanager
def lock_run_folder(out: Path) -> Iterator[None]:
    """Make the run folder, unless it is there, and hold it for this process.

    Raises:
        UserError: it cannot be made, another run holds it, or it holds what `check_run_folder` refuses.
    """
    check_run_folder(out)  # before a lock file is left there
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"the run folder {out} cannot be created: {error.strerror}; choose another --out") from error
    with hold_lock(out / LOCK, out, "another training is running in"):
        check_run_folder(out)  # another run may have finished there since
        yield


def prepare_run(recipe: Recipe, out: Path, command: str | None, device: torch.device) -> None:
    """Write ``recipe.yaml`` and ``run.json`` into the run folder; what an earlier start left is replaced."""
    for leftover in ("checkpoints", "export", "eval", "heartbeats"):
        shutil.rmtree(out / leftover, ignore_errors=True)
    for pattern in ("skipped_samples*.jsonl", "nonfinite*.jsonl", "efficiency.json", "*.damaged"):
        for file in out.glob(pattern):
            file.unlink()
    # Not before the old checkpoints are gone: killed in between, the new recipe would go on from them.
    write_text(out / "recipe.yaml", dump_recipe(recipe))
    write_json(out / "run.json", {**environment(device), "command": command or command_line(), "seed": recipe.seed})


@contextmanager
def run_in_place(out: Path) -> Iterator[None]:
    """Make sure that what a run has written down at its start is there, before the block and after it.

    Raises:
        UserError: the run folder was deleted meanwhile; a file that this keeps from being written says less.
    """
    _check_in_place(out)
    try:
        yield
    except OSError:
        _check_in_place(out)
        raise
    _check_in_place(out)


def _check_in_place(out: Path) -> None:
    for file in (out / "recipe.yaml", out / "run.json"):
        if not file.exists():
            raise vanished(file)


def record_resume(recipe: Recipe, out: Path, step: int, command: str | None, device: torch.device) -> None:
    """Add to ``run.json`` that the run goes on after ``step``, with what software and where.

    A damaged one is put aside, as ``run.json.damaged``: nothing of the training depends on it.
    """
    path = out / "run.json"
    command, now = command or command_line(), environment(device)
    try:
        record = read_values(path, About)
    except Unreadable as error:
        if path.exists():
            path.replace(path.with_name("run.json.damaged"))
        logger.warning("%s cannot be read (%s); a new one begins here", path, error.reason)
        record = {**now, "command": command, "seed": recipe.seed}
    again = {"after_step": step, "command": command, **now}
    write_json(path, {**record, "resumed": [*record.get("resumed", []), again]})


def environment(device: torch.device | None = None) -> dict[str, Any]:
    """Versions, git commit, machine and time: what a number needs beside it to mean something."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": {
            "python": platform.python_version(),
            "kdlosses": kdlosses.__version__,
            **{name: _version(name) for name in _PACKAGES},
        },
        "git_commit": git_commit(),
        "device": describe_device(device or torch.device("cpu")),
        "threads": torch.get_num_threads(),
    }


def command_line() -> str:
    """The command as typed, for the record."""
    return shlex.join(["clipkd", *sys.argv[1:]])


def describe_device(device: torch.device) -> str:
    """The device's name as its maker writes it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} cores" if names else platform.processor() or platform.machine()


@cache
def git_commit() -> str | None:
    """The commit of the checkout that this code runs from, ``-dirty`` when it differs; None outside a checkout.

    As it is at the first call: what is committed later is not what this process has imported.
    """
    here = Path(__file__).parent
    commit = _git(here, "rev-parse", "HEAD")
    if not commit or not _git(here, "ls-files", Path(__file__).name):
        return None
    return commit + ("-dirty" if _git(here, "status", "--porcelain", "--untracked-files=no") else "")


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


@cache
def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
