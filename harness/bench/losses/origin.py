"""Origin of a measurement: machine, commit and versions."""

from __future__ import annotations

from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version

import torch

import kdlosses
from harness.bench.losses.rows import Origin
from harness.runs import command_line, describe_device, git_commit


def origin(device: str) -> Origin:
    """Here and now."""
    return Origin(
        machine=describe_device(torch.device(device)),
        kdlosses=kdlosses.__version__,
        torch=str(torch.__version__),
        open_clip=_version("open_clip_torch"),
        memeff=_version("memeff"),
        triton=_version("triton"),
        commit=git_commit() or "",
        command=command_line(),
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
