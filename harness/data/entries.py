"""The entries of `data.train`, one by one: texts taken apart at their commas, each with its root and weight."""

import os.path
import re

from harness.config.data import DataConfig, TrainSource
from harness.errors import UserError

PIPE = "pipe:"
# Two letters at least: C:/ is a drive.
_ADDRESS = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://")


def entries(cfg: DataConfig) -> list[TrainSource]:
    """Return every single source in order, with `data.root` where it has no root of its own.

    Raises:
        UserError: there is nothing between two commas.
    """
    written = [TrainSource(path=entry) if isinstance(entry, str) else entry for entry in cfg.train]
    found = []
    for entry in written:
        root = cfg.root if entry.root is None else entry.root
        found += [TrainSource(path=path, root=root, weight=entry.weight) for path in _split(entry.path)]
    return found


def is_remote(path: str) -> bool:
    """Tell whether a path is an address or a command, so that it is opened by webdataset and cannot be listed."""
    return path.startswith(PIPE) or _ADDRESS.match(path) is not None


def _split(text: str) -> list[str]:
    """Cut at the commas outside braces; a command, or a name that exists as it is, is not cut."""
    if text.startswith(PIPE) or os.path.exists(text):
        return [text]
    parts, depth = [""], 0
    for character in text:
        depth += (character == "{") - (character == "}")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    parts = [part.strip() for part in parts]
    if not all(parts):
        raise UserError(f"data.train: {text!r} has nothing before, between or after its commas; leave no part empty.")
    return parts


def describe(cfg: DataConfig) -> str:
    """Return the entries of `data.train` as a user wrote them, the long list cut."""
    return listed([entry if isinstance(entry, str) else _described(entry) for entry in cfg.train])


def listed(names: list[str]) -> str:
    """Join names, the long list cut."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _described(entry: TrainSource) -> str:
    return entry.path + (f" (weight {entry.weight:g})" if entry.weight != 1 else "")
