"""Samples and shards that were skipped: counted, written down; too many of them end the run."""

import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, astuple
from pathlib import Path
from typing import Any

from harness.data.samples import OF_SHARDS, SkippedSample
from harness.errors import UserError

logger = logging.getLogger(__name__)

# Below this many samples a rate says nothing yet, unless the whole data set was read.
MIN_SEEN = 200


class SkippedSamples:
    """Skipped samples of a run: counts them by kind and appends each of them, once, to a file.

    Args:
        path: the skipped_samples.jsonl to append to, made when the first one is met; None writes nothing.
        max_rate: share of skipped samples, and of broken shards, 0 to 1, above which UserError is raised.
        num_shards: how many shards there are.

    Attributes:
        counts: how many were met, by kind, each sample once.
    """

    def __init__(self, path: Path | None, max_rate: float, num_shards: int = 0) -> None:
        self.path = path
        self.max_rate = max_rate
        self.counts: Counter[str] = Counter()
        self._num_shards = num_shards
        # One broken shard of few is more than any small rate, and no reason to lose the others.
        self._max_broken = 0 if max_rate == 0 else max(1, int(max_rate * num_shards))
        self._num_seen = 0
        self._num_bad = 0
        self._num_bytes = 0  # of the file
        self._known: set[int] = set()
        self._first: SkippedSample | None = None

    def add(self, bad: Sequence[SkippedSample], num_good: int, *, complete: bool = False) -> None:
        """Take in what was read; `complete` says that nothing of the data set is left to read.

        Raises:
            UserError: too many samples are skipped or shards broken, or the file cannot be written.
        """
        samples = [sample for sample in bad if sample.kind not in OF_SHARDS]
        self._num_seen += len(samples) + num_good
        self._num_bad += len(samples)
        found = {_name(sample): sample for sample in bad}
        new = {name: sample for name, sample in found.items() if name not in self._known}
        self._known.update(new)
        self.counts.update(sample.kind for sample in new.values())
        self._first = self._first or next(iter(samples), None)
        self._write(list(new.values()))
        self._warn_of_sizes(list(new.values()))
        broken = [sample for sample in new.values() if sample.kind == "broken_shard"]
        if broken and self.counts["broken_shard"] > self._max_broken:
            raise UserError(self._too_many_broken(broken[-1]))
        enough = complete or self._num_seen >= MIN_SEEN
        if enough and self._num_bad > self.max_rate * self._num_seen:
            raise UserError(self._too_many())

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` goes on from, in plain numbers and texts."""
        return {
            "counts": dict(self.counts),
            "seen": self._num_seen,
            "bad": self._num_bad,
            "bytes": self._num_bytes,
            "known": sorted(self._known),
            "first": None if self._first is None else list(astuple(self._first)),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state; lines that a run wrote after it are cut off the file, for they will be written again."""
        self.counts = Counter(state["counts"])
        self._num_seen, self._num_bad, self._num_bytes = state["seen"], state["bad"], state["bytes"]
        self._known = set(state["known"])
        self._first = None if state["first"] is None else SkippedSample(*state["first"])
        if self.path is not None and self.path.is_file() and self.path.stat().st_size > self._num_bytes:
            os.truncate(self.path, self._num_bytes)

    def _write(self, new: Sequence[SkippedSample]) -> None:
        if self.path is None or not new:
            return
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(asdict(sample)) + "\n" for sample in new)
                self._num_bytes = file.tell()
        except OSError as error:
            message = f"cannot write {self.path}: {error.strerror}; free some space or choose another --out."
            raise UserError(message) from error

    def _warn_of_sizes(self, new: Sequence[SkippedSample]) -> None:
        """Say once that what is written about shards is wrong: the length of epochs is computed from it."""
        wrong = [sample for sample in new if sample.kind == "shard_size"]
        if wrong and self.counts["shard_size"] == len(wrong):
            logger.warning(
                "data.train: %s: %s%s; epochs are as long as that file says, so write it again or delete it",
                wrong[0].shard,
                wrong[0].reason,
                f" (all such shards are listed in {self.path})" if self.path else "",
            )

    def _too_many_broken(self, last: SkippedSample) -> str:
        allowed = f"{self._max_broken} of {self._num_shards} shards" if self._num_shards else "none"
        return (
            f"data.train: {self.counts['broken_shard']} shards are broken, more than data.max_skip_rate = "
            f"{self.max_rate:g} allows ({allowed}); the last is {last.shard} ({last.reason}){self._where()}; fix or "
            "remove the files, list only the good shards in data.train, or raise data.max_skip_rate."
        )

    def _too_many(self) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.counts.most_common() if kind not in OF_SHARDS)
        assert self._first is not None
        return (
            f"{self._num_bad} of the first {self._num_seen} samples cannot be used, more than data.max_skip_rate = "
            f"{self.max_rate:g} allows: {kinds}; the first is {self._first.key} in {self._first.shard}: "
            f"{self._first.reason}{self._where()}; fix the data or raise data.max_skip_rate."
        )

    def _where(self) -> str:
        return f" (all of them are listed in {self.path})" if self.path else ""


def _name(sample: SkippedSample) -> int:
    """Return a number that tells skipped samples apart: millions of them make a small state."""
    digest = hashlib.blake2b("\0".join((sample.shard, sample.key, sample.kind)).encode(errors="replace"), digest_size=8)
    return int.from_bytes(digest.digest(), "big", signed=True)
