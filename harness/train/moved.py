"""Data and weights that have moved since a run was started: the same recipe, and the same content elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.config import ModelConfig, Recipe
from harness.data.entries import entries, is_remote
from harness.data.paths import expand_shards
from harness.errors import UserError
from harness.model_folders import find_folder, weight_files
from harness.teachers.identity import digest, digest_ends

logger = logging.getLogger(__name__)

# What a variable stood for, and what it stands for.
Roots = Sequence[tuple[str, str]]
# Of many shards the sizes are compared, and the content of so many.
_READ = 16


def roots_of(saved: Recipe, recipe: Recipe) -> Roots:
    """The values of ${data_root} and ${weights_root} in two recipes."""
    was, now = saved.paths, recipe.paths
    return [(was.data_root, now.data_root), (was.weights_root, now.weights_root)]


def is_same_unreplaced(was: Any, now: Any, roots: Roots) -> bool:
    """Whether two values come of one text with variables in it.

    Args:
        was: a text, or lists and mappings of texts.
        now: likewise.
        roots: what the variables were replaced by in the one and in the other.
    """
    if isinstance(was, dict) and isinstance(now, dict):
        return was.keys() == now.keys() and all(is_same_unreplaced(was[key], now[key], roots) for key in was)
    if isinstance(was, list) and isinstance(now, list):
        return len(was) == len(now) and all(map(lambda a, b: is_same_unreplaced(a, b, roots), was, now))
    if not (isinstance(was, str) and isinstance(now, str)):
        return bool(was == now)
    seen, places = {(0, 0)}, [(0, 0)]
    while places:
        i, j = places.pop()
        if (i, j) == (len(was), len(now)):
            return True
        steps = [(len(a), len(b)) for a, b in roots if was.startswith(a, i) and now.startswith(b, j)]
        if was[i : i + 1] == now[j : j + 1] != "":
            steps.append((1, 1))
        places += [place for a, b in steps if (place := (i + a, j + b)) not in seen]
        seen.update(places)
    return False


def inputs_of(recipe: Recipe) -> dict[str, str]:
    """Digests of the shards and of the teachers' weights, from their sizes and ends; by what a message calls them.

    Other data is told apart by the loader, from its state. What is not a file here has no digest.
    """
    shards = [
        shard for entry in entries(recipe.data) if _is_shards(entry.path) for shard in expand_shards(entry.path)[0]
    ]
    found = {"the shards of data.train": _files([Path(shard) for shard in shards if not is_remote(shard)])}
    for number, teacher in enumerate(recipe.all_teachers, start=1):
        name = f"the weights of teacher {number}" if recipe.teachers else "the teacher's weights"
        found[name] = _files(_weight_files(teacher))
    return {name: value for name, value in found.items() if value}


def check_inputs(recipe: Recipe, saved: dict[str, str] | None, out: Path) -> None:
    """Refuse to go on with other shards or another teacher.

    Args:
        recipe: to go on with.
        saved: as `inputs_of` gave it at its last start; None of a run of an older version.
        out: the run folder, for the message.

    Raises:
        UserError: naming what differs.
    """
    if saved is None:
        logger.warning("%s does not say what its data and weights were: those that are here are taken for them", out)
        return
    now = inputs_of(recipe)
    other = [name for name, value in saved.items() if now.get(name) != value]
    if other:
        raise UserError(
            f"{out} cannot go on where its files have moved to: {' and '.join(other)} are others there; give "
            "the folder that holds those, or choose another --out for a run with these"
        )


def _is_shards(path: str) -> bool:
    return not path.startswith("synthetic:") and not path.lower().endswith((".csv", ".tsv"))


def _weight_files(teacher: ModelConfig) -> list[Path]:
    folder = None if teacher.config is not None else find_folder(teacher.model)
    if folder is not None:
        return weight_files(folder)
    path = Path(teacher.pretrained or "").expanduser()
    return [path] if teacher.pretrained is not None and path.is_file() else []


def _files(paths: Sequence[Path]) -> str:
    """A digest of files, empty of none."""
    read = paths[:: max(1, len(paths) // _READ)]
    return digest([[_size(path) for path in paths], [_ends(path) for path in read]]) if paths else ""


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # it is a broken shard then, which its reader counts and tells
        return -1


def _ends(path: Path) -> str:
    try:
        return digest_ends(path)
    except OSError:
        return ""
