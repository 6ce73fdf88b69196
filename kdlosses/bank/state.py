"""The keys that a loss keeps: set once, or a first-in-first-out queue of teacher embeddings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from kdlosses.bank.requests import Keys
from kdlosses.checks import check_features
from kdlosses.inputs import Inputs
from kdlosses.state import TermState

SIDES = ("image", "text")


class KeyBank(TermState):
    """K keys for image queries, for text queries, or for both, each K x D, in buffers.

    A queue begins empty; each batch takes the place of the oldest keys, images in one queue and texts in the other.

    Args:
        num_keys: K.
        width: D, the teacher's.
        sides: which of `SIDES` have keys.
        follows: whether it is a queue.
        by_number: whether calls name keys by number.

    Raises:
        ValueError: for more keys than this machine has memory for.
    """

    count: Tensor

    def __init__(
        self, num_keys: int, width: int, sides: tuple[str, ...] = SIDES, follows: bool = False, by_number: bool = False
    ) -> None:
        super().__init__()
        _check_memory(num_keys, width, len(sides))
        self.num_keys, self.width, self.sides = num_keys, width, sides
        self.follows, self.by_number = follows, by_number
        for side in sides:
            self.register_buffer(f"{side}_keys", torch.zeros(num_keys, width))
        # Of all that were ever taken in: where the next goes, and how many there are.
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self._is_set = follows  # known without asking the device

    def keys(self, side: str) -> Keys:
        """The keys for queries of ``side``."""
        return Keys(getattr(self, f"{side}_keys"), self.count if self.follows else None)

    def check(self, loss: str, inputs: Inputs, values: bool) -> None:
        """See `TermState`: numbers on the CPU are always looked at, as nothing waits for them."""
        if not self._is_set:
            raise ValueError(
                f"{loss} has a bank without keys: give it its {self.num_keys} keys of width {self.width} with "
                "set_keys(keys), or load a state dict that has them"
            )
        targets = inputs.bank_targets
        if targets is None or not self.by_number or torch.compiler.is_compiling():
            return
        if values or targets.device.type == "cpu":
            self._check_targets(targets)

    @torch.no_grad()
    def set_keys(self, *keys: Tensor) -> None:
        """Set all keys.

        Args:
            keys: ``[K, D]``, for image and text queries alike; or two such, for images and for texts. A queue takes
                fewer than K too, and goes on from there.

        Raises:
            ValueError: for keys of another shape, of no floating dtype or not finite.
        """
        if len(keys) not in (1, len(self.sides)):
            raise ValueError(
                f"set_keys takes one tensor or {len(self.sides)}, for {', '.join(self.sides)}, got {len(keys)}"
            )
        for number, one in enumerate(keys):
            self._check_keys("keys" if len(keys) == 1 else f"keys for {self.sides[number]} queries", one)
        if len({len(one) for one in keys}) > 1:
            raise ValueError(f"set_keys takes as many keys for images as for texts, got {[len(one) for one in keys]}")
        for side, one in zip(self.sides, keys * (len(self.sides) // len(keys)), strict=True):
            buffer = getattr(self, f"{side}_keys")
            buffer.zero_()[: len(one)] = one.to(buffer)
        self.count.fill_(len(keys[0]))
        self._is_set = True

    @torch.no_grad()
    def update(self, teacher: Mapping[str, Tensor]) -> None:
        """See `TermState`: a batch of more than K pairs leaves its last K."""
        total = teacher[self.sides[0]].shape[0]
        taken = min(total, self.num_keys)
        places = (self.count + torch.arange(total - taken, total, device=self.count.device)) % self.num_keys
        for side in self.sides:
            buffer = getattr(self, f"{side}_keys")
            rows = teacher[side][total - taken :]
            # One broken row would make every loss of the queue's next rounds one.
            rows = torch.where(rows.isfinite().all(1, keepdim=True), rows, 0)
            buffer.index_copy_(0, places, rows.to(buffer.dtype))
        self.count.add_(total)

    def _check_targets(self, targets: Tensor) -> None:
        least, most = int(targets.min()), int(targets.max())
        if least < -1 or most >= self.num_keys:
            raise ValueError(
                f"bank_targets must be numbers of the bank's {self.num_keys} keys, 0 to {self.num_keys - 1}, or -1 for "
                f"none, got {least if least < -1 else most}"
            )

    def extra_repr(self) -> str:
        """For ``print(loss)``."""
        kind = "queue of teacher embeddings" if self.follows else "keys"
        return f"{kind}, {self.num_keys} x {self.width}, for {' and '.join(self.sides)} queries"

    def _check_keys(self, name: str, keys: Any) -> None:
        check_features(name, keys)
        most = self.num_keys
        rows_fit = keys.shape[0] <= most if self.follows else keys.shape[0] == most
        if not rows_fit or keys.shape[1] != self.width:
            wanted = f"at most {most}" if self.follows else f"{most}"
            raise ValueError(
                f"{name} must be {wanted} rows of the teacher's width {self.width}, got {list(keys.shape)}"
            )
        # A tensor of another type, such as a fake one, may have no numbers to look at.
        if type(keys) is Tensor and not keys.is_meta and not bool(torch.isfinite(keys).all()):
            raise ValueError(f"{name} must be finite; {int((~torch.isfinite(keys)).any(1).sum())} rows are not")

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *others: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *others)
        count = state_dict.get(f"{prefix}count")
        if isinstance(count, Tensor) and not count.is_meta:
            self._is_set = self.follows or bool(count > 0)


def _check_memory(num_keys: int, width: int, sides: int) -> None:
    wanted = num_keys * width * sides * torch.get_default_dtype().itemsize
    there = _memory()
    if there is not None and torch.empty(0).is_cpu and wanted > there:
        raise ValueError(
            f"a bank of {num_keys} keys of width {width} for {sides} kinds of queries takes {wanted / 2**30:.1f} GiB, "
            f"and this machine has {there / 2**30:.1f} GiB of memory; take fewer keys"
        )


def _memory() -> int | None:
    """Bytes of this machine, None where it does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
