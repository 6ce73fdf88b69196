"""What a check found: one row of the screen."""

from __future__ import annotations

import socket
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

Level = Literal["ok", "skipped", "warning", "fault"]


@dataclass(frozen=True)
class Finding:
    """One row.

    Args:
        check: what was looked at.
        level: fault = something will not work, warning = it may not, or slowly.
        says: what was found.
        fix: what to do; empty where there is nothing to do.
    """

    check: str
    level: Level
    says: str
    fix: str = ""

    def as_dict(self) -> dict[str, str]:
        """Plain texts, for JSON."""
        return asdict(self)


def failed(check: str, error: BaseException, fix: str, part: str = "") -> Finding:
    """The row of a part of a check that raised."""
    return Finding(check, "fault", f"{part}: {describe_error(error)}" if part else describe_error(error), fix)


def describe_error(error: BaseException) -> str:
    """The kind of an error and the first line of its message."""
    lines = str(error).strip().splitlines()
    return anonymous(f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__)


def anonymous(text: str) -> str:
    """``text`` without home folder and host name: the screen is pasted into public issues."""
    home, host = str(Path.home()), socket.gethostname()
    text = text.replace(home, "~") if len(home) > 1 else text
    return text.replace(host, "HOST") if len(host) > 4 else text  # a shorter one is part of other words
