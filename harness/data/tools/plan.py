"""Plan of a conversion: the inputs and options that must be the same when it is resumed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.config.data import IMAGE_FORMATS

# Options that plans of earlier versions lack, with the values that these conversions go on with.
_SINCE = {"--image-formats": ",".join(IMAGE_FORMATS)}
LAYOUT = 2  # raise it when names or contents of the written files change


@dataclass(frozen=True)
class Plan:
    """A conversion.

    Attributes:
        to: "shards" or "csv".
        options: the options that decide on what is written, by the name that the user types.
        sources: each file that is read: name, bytes, and modified, in nanoseconds since 1970.
        layout: the version of what is written.
    """

    to: str
    options: dict[str, Any]
    sources: list[dict[str, Any]]
    layout: int = LAYOUT


def identify(files: Iterable[str]) -> list[dict[str, Any]]:
    """Describe files so that a change in one shows, without reading them; of a remote one the address must do."""
    return [_identity(file) for file in files]


def _identity(file: str) -> dict[str, Any]:
    if not Path(file).is_file():
        return {"name": file}
    status = Path(file).stat()
    return {"name": Path(file).name, "bytes": status.st_size, "modified": status.st_mtime_ns}


def differences(earlier: Plan, now: Plan) -> list[str]:
    """Say in words what has changed, the most telling first; nothing if nothing has."""
    if earlier.layout != now.layout:
        return [f"another version of clipkd wrote it (layout {earlier.layout}, now {now.layout})"]
    if earlier.to != now.to:
        return [f"it goes to {earlier.to}, this one to {now.to}"]
    was = {**_SINCE, **earlier.options}
    options = [
        f"{name} was {was.get(name)}, now {value}" for name, value in now.options.items() if was.get(name) != value
    ]
    return options + _changed_sources(earlier.sources, now.sources)


def _changed_sources(earlier: list[dict[str, Any]], now: list[dict[str, Any]]) -> list[str]:
    before, after = ([source["name"] for source in sources] for sources in (earlier, now))
    if before != after:
        gone, new = (
            [name for name in ours if name not in theirs] for ours, theirs in ((before, after), (after, before))
        )
        lists = [f"{word} {', '.join(names[:3])}" for word, names in (("without", gone), ("with", new)) if names]
        detail = f" ({' and '.join(lists)})" if lists else " (in another order)"
        return [f"it reads {len(before)} files, this one {len(after)}{detail}"]
    changed = [old["name"] for old, new in zip(earlier, now, strict=True) if old != new]
    more = f" and {len(changed) - 3} more files" if len(changed) > 3 else ""
    return [f"{', '.join(changed[:3])}{more} changed since"] if changed else []
