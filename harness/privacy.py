"""Text for others: without folders of this machine, in which user and host names stand, and without credentials."""

from __future__ import annotations

import functools
import getpass
import os
import re
import shlex
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

# What stands in for the folders above a name.
ELSEWHERE = "\u2026"
_STOPS = r"\s/'\"`,;:|<>()\[\]{}"
# An absolute path, or one that leaves the working folder; `//` and a slash after a word belong to addresses and units.
_PATH = re.compile(
    rf"(?<![\w.~\-/@}}<{ELSEWHERE}])(?:/(?!/)|(?:\.\./)+)(?:(?:[^{_STOPS}]+/)+[^{_STOPS}]*|[^{_STOPS}]+)"
)
_REST = re.compile(rf"{ELSEWHERE}/(?:[^{_STOPS}]+/)+")
_LOGIN, _QUERY = re.compile(r"(?<=://)[^/@\s]+@"), re.compile(r"(://[^\s?'\"]+)\?[^\s'\",]*")
_HOMES = ("/home", "/Users")


class PathHider:
    """`hide_paths` for many texts, such as those of a page, or a list of thousands of shards.

    Args:
        known: absolute paths that may be part of the texts, which are found whatever characters they have.
    """

    def __init__(self, known: Iterable[str] = ()) -> None:
        self._whole = _with_parents(known)
        self._longest_first = sorted(self._whole, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """Replace the folders of every absolute path by an ellipsis, and a home folder by `~`."""
        text = _QUERY.sub(r"\1", _LOGIN.sub("", text))
        if "/" not in text:
            return text
        for folder in (text,) if text in self._whole else self._longest_first:
            text = text.replace(f"{folder}/", f"{ELSEWHERE}/").replace(folder, _shown(folder))
        return _REST.sub(f"{ELSEWHERE}/", _PATH.sub(lambda match: _shown(match[0]), text))


def hide_paths(text: str, known: Iterable[str] = ()) -> str:
    """Replace the folders of every absolute path by an ellipsis, and a home folder by `~`.

    Args:
        text: a setting, a command or a sentence.
        known: see `PathHider`.
    """
    return PathHider(known)(text)


def hide_in_values(value: Any, known: Iterable[str] = ()) -> Any:
    """`hide_paths` for every text in nested lists and mappings, such as the settings of a run."""
    hide = PathHider({*known, *absolute_paths(value)})

    def hidden(item: Any) -> Any:
        if isinstance(item, dict):
            return {key: hidden(inner) for key, inner in item.items()}
        if isinstance(item, list | tuple):
            return [hidden(inner) for inner in item]
        return hide(item) if isinstance(item, str) else item

    return hidden(value)


def hide_in_command(command: str) -> str:
    """`hide_paths` for a command line, with quotes where it has them."""
    try:
        words = shlex.split(command)
    except ValueError:  # an open quote, in a file that somebody has edited
        return hide_paths(command)
    return shlex.join([hide_paths(word, absolute_paths(word)) for word in words])


def absolute_paths(value: Any) -> Iterator[str]:
    """The absolute paths among nested values: whole texts, parts between commas, and what follows `key=` or `run:`."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from absolute_paths(item)
    elif isinstance(value, str) and not value.startswith("pipe:"):
        for text in (value, *value.split(",")):
            path = re.sub(r"^[\w.-]+[=:](?!//)", "", text.strip())
            if path.startswith("/") and len(path) > 1:
                yield path


def below_home(folder: Path) -> tuple[str, ...]:
    """The parts of an absolute path, without those of the home folder that it is in."""
    homes = [Path(os.path.expanduser("~")), *(parent for parent in folder.parents if str(parent.parent) in _HOMES)]
    home = next((home for home in homes if home != folder and folder.is_relative_to(home)), None)
    return folder.relative_to(home).parts if home else folder.parts[1:]


def _shown(path: str) -> str:
    if Path(path) == Path(os.path.expanduser("~")) or os.path.dirname(path.rstrip("/")) in _HOMES:
        return "~" if not path.endswith("/") else "~/"
    name = os.path.basename(path)
    return ELSEWHERE if _names_owner(name) else f"{ELSEWHERE}/{name}"


def _names_owner(name: str) -> bool:
    """Whether a folder is called after the user or the machine."""
    return not {*re.split(r"[^\w-]+", name)}.isdisjoint(_owner())


@functools.cache
def _owner() -> frozenset[str]:
    host = socket.gethostname()
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        user = host
    return frozenset({user, host, host.partition(".")[0]})


def _with_parents(paths: Iterable[str]) -> set[str]:
    """These and their parents, but for folders right below the root, which are nobody's."""
    return {str(part) for path in paths for part in (Path(path), *Path(path).parents) if len(part.parts) > 2}
