"""Finding data files, and saying what is there when they are not."""

import glob
import re
from difflib import get_close_matches
from itertools import islice
from math import prod
from pathlib import Path
from typing import NoReturn

from braceexpand import UnbalancedBracesError, braceexpand  # type: ignore[attr-defined]  # its stub lacks the error

from harness.data.entries import is_remote
from harness.data.remote import check_remote
from harness.errors import UserError

_PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")  # of a folder without any plain .tar
_RANGE = re.compile(r"\{(-?\d{1,18})\.\.(-?\d{1,18})(?:\.\.(-?\d{1,18}))?\}")
_MOST = 1_000_000


def expand_shards(pattern: str) -> tuple[list[str], int]:
    """Find the shards that a pattern names.

    Args:
        pattern: a folder of .tar files, a glob or one file; an address or a pipe: command; each of them may hold
            ranges such as {00000..00009}. A file of that very name goes first.

    Returns:
        The shards, and how many of a range are not there: img2dataset leaves gaps. Remote ones are not looked for.

    Raises:
        UserError: there is none, or the pattern cannot be understood.
    """
    if Path(pattern).is_dir():
        return _in_folder(Path(pattern)), 0
    if is_remote(pattern):
        names = _expand_braces(pattern)
        check_remote(pattern)
        return names, 0
    if Path(pattern).is_file():
        return [pattern], 0
    names = _expand_braces(pattern)
    found = [_matching(name) for name in names]
    if not any(found):
        _refuse_missing(pattern, names)
    return [shard for matching in found for shard in matching], sum(not matching for matching in found)


def _in_folder(folder: Path) -> list[str]:
    found = sorted(folder.glob("*.tar")) or sorted(
        path for path in folder.iterdir() if path.name.lower().endswith(_PACKED) and path.is_file()
    )
    return _some(found, f"no .tar file in the folder {folder}")


def _expand_braces(pattern: str) -> list[str]:
    # braceexpand makes a list of each range before it gives the first name.
    counts = [
        abs(int(end) - int(begin)) // max(1, abs(int(step or 1))) + 1 for begin, end, step in _RANGE.findall(pattern)
    ]
    # Of alternatives, which have commas, the counts are added.
    least = max(counts, default=0) if "," in pattern else prod(counts)
    try:
        names = [] if least > _MOST else list(islice(braceexpand(pattern), _MOST + 1))
    except UnbalancedBracesError as error:
        raise UserError(f"data.train: {pattern} has an unbalanced brace; write a range as {{00000..00009}}.") from error
    if not 0 < len(names) <= _MOST:
        raise UserError(f"data.train: {pattern} names more than {_MOST:,} shards; check its range.")
    return names


def _matching(name: str) -> list[str]:
    """Return the file of a name, or those that it names as a glob."""
    if Path(name).is_file():
        return [name]
    return sorted(glob.glob(name)) if glob.has_magic(name) else []


def _refuse_missing(pattern: str, names: list[str]) -> NoReturn:
    name = names[0]
    if glob.has_magic(name):
        _some([], f"no file matches {name}{nearest(Path(name))}")
    existing_file(Path(name), "shard" if name == pattern else f"shard of {pattern}")
    raise AssertionError("it is missing")


def _some(paths: list[Path], problem: str) -> list[str]:
    if not paths:
        raise UserError(f"data.train: {problem}; check the path or build the data first (clipkd data --help).")
    return [str(path) for path in paths]


def existing_file(path: Path, what: str) -> Path:
    """Return the path if it is a file, else say what is nearest to it."""
    if path.is_file():
        return path
    if path.exists():
        raise UserError(f"data.train: {path} is not a regular file; give a {what}.")
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
