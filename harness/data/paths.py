"""Finding data files, and saying what is there when they are not."""

import glob
from difflib import get_close_matches
from pathlib import Path

from braceexpand import UnbalancedBracesError, braceexpand

from harness.errors import UserError


def expand_shards(pattern: str) -> list[Path]:
    """Return the shards that a pattern names: a folder of .tar files, a {00000..00009} range, a glob or one file."""
    if Path(pattern).is_dir():
        return _some(sorted(Path(pattern).glob("*.tar")), f"no .tar file in the folder {pattern}")
    try:
        names = list(braceexpand(pattern))
    except UnbalancedBracesError as error:
        raise UserError(f"data.train: {pattern} has an unbalanced brace; write a range as {{00000..00009}}.") from error
    return [path for name in names for path in _expand_one(name, pattern)]


def _expand_one(name: str, pattern: str) -> list[Path]:
    if glob.has_magic(name):
        return _some(sorted(map(Path, glob.glob(name))), f"no file matches {name}{nearest(Path(name))}")
    return [existing_file(Path(name), f"shard of {pattern}" if name != pattern else "shard")]


def _some(paths: list[Path], problem: str) -> list[Path]:
    if not paths:
        raise UserError(f"data.train: {problem}; check the path or build the data first (clipkd data --help).")
    return paths


def existing_file(path: Path, what: str) -> Path:
    """Return the path if it is a file, else say what is nearest to it."""
    if path.is_file():
        return path
    raise UserError(f"data.train: no {what} at {path}{nearest(path)}; check the path or build the data first.")


def nearest(path: Path) -> str:
    """Describe what exists closest to a missing path: like-named neighbors, or the deepest folder that is there."""
    folder = path.absolute().parent
    if not folder.is_dir():
        while not folder.is_dir():
            folder = folder.parent
        return f" (the folder {path.absolute().parent} does not exist, {folder} does)"
    names = sorted(entry.name for entry in folder.iterdir())
    close = get_close_matches(path.name, names, n=3, cutoff=0.5) or names[:3]
    return f" (nearest there: {', '.join(close)})" if close else f" (the folder {folder} is empty)"
