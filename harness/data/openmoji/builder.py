"""Build the OpenMoji data set: all of it, or nothing that a second run could mistake for it."""

import json
import shutil
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from harness.data.openmoji.annotations import ATTRIBUTION, VERSION, Icon, read_icons
from harness.data.openmoji.render import render, svg_folder
from harness.data.openmoji.sets import write_all
from harness.errors import UserError
from harness.files import Unreadable
from harness.records.reading import Count, Schema, Text, read_values

LAYOUT = 2  # raise it when the split, the folders or the drawing change: data sets built before are rebuilt
MARKER = "dataset.json"


def build(out: Path, size: int = 64, *, limit: int | None = None) -> dict[str, Any]:
    """Build the data set unless `out` already holds it, every file of it at its full size.

    The folder appears under its name when it is complete, so a killed build needs no clean-up.

    Args:
        out: where the data set goes; an older one there is replaced, any other content is refused.
        size: side of the images in pixels.
        limit: keep only this many icons of each split (for tests).

    Returns:
        What dataset.json says: layout, openmoji, size, limit, license, counts (images in each folder), and files
        (bytes of each).

    Raises:
        UserError: `out` holds something else or cannot be written, or a package is missing.
    """
    out = Path(out).resolve()
    wanted = {"name": "openmoji", "layout": LAYOUT, "openmoji": VERSION, "size": size, "limit": limit}
    try:
        found = _read_marker(out)
        if found is not None and found | wanted == found and _is_whole(out, found):
            return found
        return _build_aside(out, svg_folder(), wanted)
    except OSError as error:
        raise UserError(
            f"cannot write the OpenMoji data set to {out}: {error.strerror or error}; "
            "free about 50 MB there or choose another folder, then run the command again."
        ) from error


class _Marker(Schema):
    """What every version has written; those of other layouts are replaced."""

    name: Literal["openmoji"]
    files: dict[Text, Count] = Field(default_factory=dict)


def _read_marker(out: Path) -> dict[str, Any] | None:
    """Return the marker of the data set at `out`, None if there is nothing, and refuse a folder of another kind."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    try:
        return read_values(out / MARKER, _Marker)
    except Unreadable as error:
        raise UserError(
            f"{out} exists and is not an OpenMoji data set (its {MARKER} cannot be read: {error.reason}); choose "
            "another folder."
        ) from error


def _build_aside(out: Path, svgs: Path, wanted: dict[str, Any]) -> dict[str, Any]:
    """Build in a sibling folder, then swap it in; siblings that a killed build left behind are removed first."""
    aside, old = (out.with_name(f".{out.name}.{state}") for state in ("building", "old"))
    for leftover in (aside, old):
        shutil.rmtree(leftover, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        summary = _fill(aside, svgs, wanted)
        if out.exists():
            out.rename(old)
        aside.rename(out)
    finally:
        for leftover in (aside, old):
            shutil.rmtree(leftover, ignore_errors=True)
    return summary


def _fill(folder: Path, svgs: Path, wanted: dict[str, Any]) -> dict[str, Any]:
    icons = read_icons()
    names = {icon.hexcode: icon.annotation for icon in icons}
    kept = icons if wanted["limit"] is None else _few(icons, wanted["limit"])
    pngs = {icon.hexcode: render(svgs / f"{icon.hexcode}.svg", wanted["size"]) for icon in kept}
    counts = write_all(folder, kept, pngs, names)
    (folder / "LICENSE.txt").write_text(_license(), encoding="utf-8")
    summary = {**wanted, "license": ATTRIBUTION, "counts": counts, "files": _files(folder)}
    (folder / MARKER).write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return summary


def _is_whole(folder: Path, marker: dict[str, Any]) -> bool:
    """Return whether every file that the marker lists is there at its full size."""
    files = marker.get("files")
    return isinstance(files, dict) and bool(files) and files.items() <= _files(folder).items()


def _files(folder: Path) -> dict[str, int]:
    """Return the size in bytes of every file but the marker: a lost or cut shard would shrink the data in silence."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MARKER)
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in paths}


def _few(icons: list[Icon], limit: int) -> list[Icon]:
    """Return the icons of the first bases with tones and as many without, `limit` of each."""
    toned = [icon for icon in icons if icon.tone is not None][:limit]
    return toned + [icon for icon in icons if icon.tone is None][:limit]


def _license() -> str:
    return (
        f"The images and captions in this folder are derived from OpenMoji {VERSION}: its SVG icons, drawn as PNG on\n"
        "white, and its annotations.\n\n"
        f"All emojis designed by {ATTRIBUTION}\n"
        "https://openmoji.org\nhttps://creativecommons.org/licenses/by-sa/4.0/\n\n"
        "Whatever you derive from them is to be shared under the same licence.\n"
    )
