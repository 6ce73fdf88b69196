"""Batch of training pairs, as the loader returns it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from harness.teachers.cached import CachedTeacher


@dataclass(frozen=True)
class Batch:
    """A batch of pairs.

    Attributes:
        images: uint8 [B, 3, S, S], the view that student and teacher share.
        tokens: for each tokenizer, by name, the token ids, int64 [B, L]; one tensor for tokenizers that are the same.
        captions: the B captions.
        keys: the B samples' names: the key in the shard, or the path in the CSV.
        cached: what the teacher made of these views, if a teacher cache is replayed.
    """

    images: Tensor
    tokens: dict[str, Tensor]
    captions: list[str]
    keys: list[str]
    cached: CachedTeacher | None = None

    def __len__(self) -> int:
        return len(self.keys)

    def part(self, rows: slice) -> Batch:
        """Return some of the pairs."""
        return Batch(
            self.images[rows],
            {name: ids[rows] for name, ids in self.tokens.items()},
            self.captions[rows],
            self.keys[rows],
            None if self.cached is None else self.cached.part(rows),
        )

    def pin_memory(self) -> Batch:
        """Return a copy in page-locked memory, which a GPU reads while the CPU goes on; the DataLoader calls this."""
        tokens = {name: ids.pin_memory() for name, ids in self.tokens.items()}
        cached = None if self.cached is None else self.cached.pin_memory()
        return replace(self, images=self.images.pin_memory(), tokens=tokens, cached=cached)

    def renamed(self, leaders: Mapping[str, str]) -> Batch:
        """Return the batch with the token ids of `leaders[name]` under each name."""
        return replace(self, tokens={name: self.tokens[leader] for name, leader in leaders.items()})
