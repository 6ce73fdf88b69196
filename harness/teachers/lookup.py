"""The caches of a recipe's teachers: from a sample to one of its views and what the teachers said about it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from harness.data.samples import RawSample
from harness.errors import UserError
from harness.models import LoadedModel
from harness.teachers.cached import CachedView, Pair
from harness.teachers.store import AGAIN, Store, StoredRow

Entries = tuple[StoredRow, ...]


class TeacherCache:
    """Finds samples in the caches of all teachers. It can be pickled, and used by several threads.

    Args:
        stores: one for each teacher.
    """

    def __init__(self, stores: Sequence[Store]) -> None:
        self._stores = tuple(stores)
        self.num_views = stores[0].meta.num_views

    @property
    def stores(self) -> tuple[Store, ...]:
        """One for each teacher."""
        return self._stores

    def lookup(self, raw: RawSample, epoch: int) -> CachedView | None:
        """Return the sample's view for this epoch; None if the sample could not be used when the cache was made.

        Raises:
            UserError: the cache does not have it, or it has changed since.
        """
        entries = self.find(raw)
        return None if entries is None else self.view(entries, epoch)

    def find(self, raw: RawSample) -> Entries | None:
        """Return where the sample is, for `view`, which needs no more of the sample; see `lookup`."""
        found = [entry for store in self._stores if (entry := store.find(raw)) is not None]
        return tuple(found) if len(found) == len(self._stores) else None

    def view(self, entries: Entries, epoch: int) -> CachedView:
        """Return one view; each epoch shows the next, and not all samples begin with the first."""
        number = (epoch + entries[0].identity) % self.num_views
        rows = [store.rows(entry) for store, entry in zip(self._stores, entries, strict=True)]
        boxes, maps = _one(rows, "boxes", number, entries), _one(rows, "maps", number, entries)
        features: list[Pair] = [
            (tensors["image_features"][row, number], tensors["text_features"][row]) for tensors, row in rows
        ]
        return CachedView(None if boxes is None else tuple(boxes.tolist()), maps, tuple(features))

    def cached_teachers(self) -> list[LoadedModel]:
        """Return models that a task calls in the teachers' places, without their weights."""
        return [store.cached_teacher() for store in self._stores]


def _one(rows: list[tuple[dict[str, Tensor], int]], name: str, number: int, entries: Entries) -> Any:
    """Return a parameter of the view, on which all teachers have to agree."""
    if name not in rows[0][0]:
        return None
    first, *others = (tensors[name][row, number] for tensors, row in rows)
    if any(not other.equal(first) for other in others):
        folders = " and ".join(str(entry.path.parent) for entry in entries)
        raise UserError(f"the teacher caches {folders} hold different {name} of a view; delete them and {AGAIN} again")
    return first
