"""What one call has made of its tensors, for losses that apply another one several times."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

_Made = TypeVar("_Made")


class Memo:
    """The same of the same tensors is one object: backends share work by identity, and sum its gradients once."""

    def __init__(self) -> None:
        self._found: dict[str, list[tuple[tuple[Any, ...], Any]]] = {}

    def once(self, kind: str, of: tuple[Any, ...], make: Callable[[], _Made]) -> _Made:
        """What was made of these objects, or what ``make`` makes of them now.

        Args:
            kind: what is made, and with which numbers.
            of: the objects that it is made of.
            make: makes it.
        """
        known = self._found.setdefault(kind, [])
        for objects, made in known:
            # Not by id(): a compiler has none for tensors.
            if all(one is other for one, other in zip(objects, of, strict=True)):
                found: _Made = made
                return found
        known.append((of, make()))
        return known[-1][1]  # type: ignore[no-any-return]  # what was just made
