"""Finding data files, and saying what is there when they are not."""

import glob
from difflib import get_close_matches
from pathlib import Path

from braceexpand import UnbalancedBracesError, braceexpand  # type: ignore[attr-defined]  # its stub lacks the error

from harness.data.entries import is_remote
from harness.data.remote import check_remote
from harness.errors import UserError


def expand_shards(pattern: str) -> tuple[list[str], int]:
    """Find the shards that a pattern names.

    Args:
        pattern: a folder of .tar files, a glob or one file; an address or a pipe: command; each of them may hold
            ranges such as {00000..00009}.

    Returns:
        The shards, and how many of a range are not there: img2dataset leaves gaps. Remote ones are not looked for.

    Raises:
        UserError: there is none, or the pattern cannot be understood.
    """
    if Path(pattern).is_dir():
        return _some(sorted(Path(pattern).glob("*.tar")), f"no .tar file in the folder {pattern}"), 0
    try:
        names = list(braceexpand(pattern))
    except UnbalancedBracesError as error:
        raise UserError(f"data.train: {pattern} has an unbalanced brace; write a range as {{00000..00009}}.") from error
    if is_remote(pattern):
        check_remote(pattern)
        return names, 0
    if len(names) == 1:
        return _expand_one(pattern), 0
    found = [shard for name in names if glob.has_magic(name) or Path(name).is_file() for shard in _expand_one(name)]
    if not found:
        existing_file(Path(names[0]), f"shard of {pattern}")
    return found, sum(not glob.has_magic(name) and not Path(name).is_file() for name in names)


def _expand_one(name: str) -> list[str]:
    if glob.has_magic(name):
        return _some(sorted(map(Path, glob.glob(name))), f"no file matches {name}{nearest(Path(name))}")
    return [str(existing_file(Path(name), "shard"))]


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
