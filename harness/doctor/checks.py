"""The table of checks, in the order of the screen."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace

from harness.container import usable_cores
from harness.doctor.processor import load

# Contexts on many GPUs and the compilation of kernels take their time.
_GPU_FACTOR = 4
_BUSIEST = 4.0


@dataclass(frozen=True)
class Check:
    """One check, which runs in a process of its own.

    Args:
        name: what its row is called when it fails, crashes or hangs.
        function: "module:function"; called with the folder, it yields findings.
        limit: seconds after which it is ended.
        alone: whether it measures a speed, and other checks must not run meanwhile.
        hint: what to do when it hangs or crashes.
    """

    name: str
    function: str
    limit: float
    alone: bool = False
    hint: str = "run it again; if it stays, report it with this output"


def all_checks() -> list[Check]:
    """Every check; a busy machine gets more time, and those that touch GPUs where there are any."""
    busy = min(max(1.0, load() / usable_cores()), _BUSIEST)
    factor = _GPU_FACTOR if shutil.which("nvidia-smi") else 1
    here = "harness.doctor"
    torch = "if `python -c 'import torch'` does the same, install torch and torchvision again"
    checks = [
        Check("versions", f"{here}.versions:check_versions", 15),
        Check("cpu", f"{here}.processor:check_processor", 15),
        Check("devices", f"{here}.devices:check_devices", 30 * factor, hint=torch),
        Check("losses", f"{here}.loss_backends:check_backends", 30 * factor, hint=torch),
        Check("processes", f"{here}.processes:check_processes", 40 * factor, hint=torch),
        Check("limits", f"{here}.limits:check_limits", 15),
        Check("disk", f"{here}.disk:check_disk", 15, alone=True, hint="the disk does not answer; choose --folder"),
        Check("loader", f"{here}.loading_speed:check_loading", 30, alone=True, hint=torch),
    ]
    return [replace(check, limit=round(check.limit * busy)) for check in checks]
