"""The examples: imported to be called here, or started as a user starts them."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"


def example(name: str) -> ModuleType:
    """`examples/<name>.py` as a module."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def start(command: Sequence[str | Path], folder: Path, timeout: float = 240) -> str:
    """What `python <command>` says, run within `folder`; nothing that it starts outlives the time limit."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    if Path("/sys/class/net/lo").exists():  # the name of this machine may lead nowhere
        environment["GLOO_SOCKET_IFNAME"] = "lo"
    with subprocess.Popen(
        [sys.executable, *map(str, command)],
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as process:
        try:
            told, _ = process.communicate(timeout=timeout)
        except BaseException:
            os.killpg(process.pid, 9)
            raise
    assert process.returncode == 0, told[-4000:]
    return told


def blocks(page: str) -> list[str]:
    """The Python of a page of documentation, block by block."""
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), flags=re.S)
