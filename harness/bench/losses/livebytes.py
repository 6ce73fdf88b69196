"""Bytes of live tensors, counted as operators are dispatched: the same number on every run and every machine.

What one operator takes and gives back inside itself is not seen; `--process-memory` sees that too.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class TooLong(Exception):
    """More operators than were to be followed."""


class LiveBytes(TorchDispatchMode):
    """Follows the storages that operators make while it is active, each counted once and until it is freed.

    A view, an in-place operator and `out=` make no storage; a storage that was there before counts nothing. A saved
    tensor counts as long as the graph holds it, a gradient from the moment it is made.

    Args:
        most: how many operators to follow before `TooLong` is raised; None: any number.
    """

    def __init__(self, most: int | None = None) -> None:
        super().__init__()
        self._left = most
        self.live = 0
        self.peak = 0
        # By address, which another storage can have only once the weak reference has told of the end of this one:
        # the reference, the bytes it had before it was seen, the bytes counted for it.
        self._followed: dict[int, tuple[weakref.ref, int, int]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run the operator and count what it made."""
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                raise TooLong
        kwargs = kwargs or {}
        for tensor in _tensors((args, kwargs)):
            self._follow(tensor, made_here=False)
        result = func(*args, **kwargs)
        for tensor in _tensors(result):
            self._follow(tensor, made_here=True)
        return result

    def _follow(self, tensor: Tensor, made_here: bool) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._followed:
            reference, foreign, counted = self._followed[key]
        else:
            reference = weakref.ref(storage, lambda _: self._forget(key))
            foreign, counted = (0, 0) if made_here else (size, 0)
        # Not the size alone: `out=` may grow a storage that is known already.
        self._followed[key] = (reference, foreign, size - foreign)
        self.live += size - foreign - counted
        self.peak = max(self.peak, self.live)

    def _forget(self, key: int) -> None:
        self.live -= self._followed.pop(key)[2]


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
