"""One teacher's cache, read: from a sample to its rows."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from harness.data.samples import RawSample
from harness.errors import UserError
from harness.models import LoadedModel
from harness.teachers.outputs import CachedOutputs
from harness.teachers.samples import image_check, key_id, sample_id
from harness.teachers.storage import Meta, check_part, map_part

# What a user does about a cache that does not fit.
AGAIN = "run `clipkd teacher precompute` with this recipe"
# A mapped file costs no descriptor and no memory of its own, but the system limits their number.
_OPEN = 256


class StoredRow(NamedTuple):
    """Where a sample is."""

    path: Path
    row: int
    identity: int


@dataclass(frozen=True)
class _OpenPart:
    ids: np.ndarray
    keys: np.ndarray
    bad: frozenset[int]
    tensors: dict[str, Tensor]


class Store:
    """Finds samples in the cache of one teacher. It can be pickled; each process opens the files for itself.

    Args:
        meta: what the cache's files share.
        files: the parts of each data file, by its samples' `RawSample.shard`.
    """

    def __init__(self, meta: Meta, files: dict[str, tuple[Path, ...]]) -> None:
        self.meta = meta
        self._files = files
        self._open: OrderedDict[Path, _OpenPart] = OrderedDict()
        self._checked: set[Path] = set()
        self._lock = Lock()

    def find(self, raw: RawSample) -> StoredRow | None:
        """Return where the sample is; None if it could not be used when the cache was made.

        Args:
            raw: the sample; its image may be None, for a sample that was found before and is not read again.

        Raises:
            UserError: the cache does not have it, or it has changed since.
        """
        parts = self._files.get(raw.shard)
        if parts is None:
            raise UserError(f"{raw.shard} has no teacher cache, so the teacher of {raw.key} is not known; {AGAIN}")
        identity = sample_id(raw)
        path = parts[identity % len(parts)]
        part = self._part(path)
        row = int(np.searchsorted(part.ids, identity))
        if row == len(part.ids) or part.ids[row] != identity:
            if identity in part.bad:
                return None
            raise self._unknown(raw, parts)
        if raw.image is not None and int(part.tensors["checks"][row]) != image_check(raw):
            raise UserError(_changed("image", raw, path))
        return StoredRow(path, row, identity)

    def rows(self, entry: StoredRow) -> tuple[dict[str, Tensor], int]:
        """Return the tensors that hold the sample, and its row in them."""
        return self._part(entry.path).tensors, entry.row

    def parts(self) -> Iterator[dict[str, Tensor]]:
        """Yield the tensors of every part of the cache, file by file in one order."""
        for shard in sorted(self._files):
            for path in self._files[shard]:
                yield self._part(path).tensors

    def cached_teacher(self) -> LoadedModel:
        """Return what takes the teacher's place in a task: no weights, and `CachedOutputs` as its model."""
        facts = self.meta.fingerprint
        return LoadedModel(
            model=CachedOutputs(self.meta.scalars),
            tokenizer=_unused,
            preprocess=_unused,
            image_size=facts["teacher input size"],
            mean=tuple(facts["teacher mean"]),
            std=tuple(facts["teacher std"]),
            config={"embed_dim": self.meta.embed_dim},
            name=f"{self.meta.teacher}, cached",
        )

    def __getstate__(self) -> dict[str, Any]:
        return {"meta": self.meta, "files": self._files}

    def __setstate__(self, state: dict[str, Any]) -> None:
        Store.__init__(self, state["meta"], state["files"])

    def _part(self, path: Path) -> _OpenPart:
        with self._lock:  # data.cache: memory asks from several threads
            part = self._open.pop(path, None)
            if part is None:
                if path not in self._checked:
                    check_part(path)
                    self._checked.add(path)
                tensors = map_part(path, self.meta)
                bad = frozenset(tensors["bad_ids"].tolist())
                part = _OpenPart(tensors["ids"].numpy(), tensors["keys"].numpy(), bad, tensors)
            self._open[path] = part  # the newest
            if len(self._open) > _OPEN:
                self._open.popitem(last=False)
            return part

    def _unknown(self, raw: RawSample, parts: tuple[Path, ...]) -> UserError:
        key = key_id(raw)
        for path in parts:
            if (self._part(path).keys == key).any():
                return UserError(_changed("caption", raw, path))
        return UserError(
            f"sample {raw.key} of {raw.shard} is not in the teacher cache {parts[0].parent}; {AGAIN} again"
        )


def _changed(what: str, raw: RawSample, path: Path) -> str:
    return (
        f"the {what} of sample {raw.key} in {raw.shard} is not what the teacher saw: it has changed since the cache "
        f"was made; delete {path} and {AGAIN} again"
    )


def _unused(*_: Any) -> Any:
    raise AssertionError("a cached teacher reads neither images nor texts")
