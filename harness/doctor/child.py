"""The process of one check."""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import threading
from pathlib import Path


def run(function: str, folder: str, report: str) -> None:
    """Call a check and write each of its findings at once, so that those before a crash are kept.

    Args:
        function: "module:function".
        folder: what the check is called with.
        report: file for the findings, one JSON object a line.
    """
    threading.Thread(target=_end_with_parent, daemon=True).start()
    module, _, name = function.partition(":")
    with Path(report).open("a", encoding="utf-8") as file:
        for finding in getattr(importlib.import_module(module), name)(Path(folder)):
            file.write(json.dumps(finding.as_dict()) + "\n")
            file.flush()
    sys.stdout.flush()
    os._exit(0)  # threads and devices that do not let go must not turn a finished check into a hang


def _end_with_parent() -> None:
    os.read(0, 1)  # nothing is ever written: this returns when the parent has ended
    os.killpg(0, signal.SIGKILL)
