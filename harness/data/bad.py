"""Samples that were skipped: counted, written down; too many of them, or one broken shard, end the run."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from harness.data.samples import BadSample
from harness.errors import UserError

# Below this many samples a rate says nothing yet, unless the whole data set was read.
MIN_SEEN = 200


def broken_shard(shard: str, reason: str) -> UserError:
    """Return the error for a shard that cannot be read to its end."""
    return UserError(
        f"data.train: the shard {shard} is broken ({reason}); mend or remove the file, or list only the good shards in "
        "data.train."
    )


class BadSampleLog:
    """Counts bad samples by kind and appends each of them, once, to a file.

    Args:
        path: the bad_samples.jsonl to append to, made when the first one is met; None writes nothing.
        max_rate: share of bad samples, 0 to 1, above which UserError is raised.
    """

    def __init__(self, path: Path | None, max_rate: float) -> None:
        self.path = path
        self.max_rate = max_rate
        self.counts: Counter[str] = Counter()
        self._num_seen = 0
        self._num_bad = 0
        self._known: dict[tuple[str, str, str], BadSample] = {}  # in the order met

    def add(self, bad: Sequence[BadSample], num_good: int, *, complete: bool = False) -> None:
        """Take in what was read; `complete` says that nothing of the data set is left to read.

        Raises:
            UserError: a shard is broken, too many samples are bad, or the file cannot be written.
        """
        self._num_seen += len(bad) + num_good
        self._num_bad += len(bad)
        found = {(sample.shard, sample.key, sample.kind): sample for sample in bad}
        new = {name: sample for name, sample in found.items() if name not in self._known}
        self._known.update(new)
        self.counts.update(sample.kind for sample in new.values())
        self._write(list(new.values()))
        # How many samples a broken shard hides is unknown, so no rate can allow for it.
        for sample in bad:
            if sample.kind == "broken_shard":
                raise broken_shard(sample.shard, sample.reason)
        enough = complete or self._num_seen >= MIN_SEEN
        if enough and self._num_bad > self.max_rate * self._num_seen:
            raise UserError(self._too_many())

    def _write(self, new: Sequence[BadSample]) -> None:
        if self.path is None or not new:
            return
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(asdict(sample)) + "\n" for sample in new)
        except OSError as error:
            message = f"cannot write {self.path}: {error.strerror}; free some space or choose another --out."
            raise UserError(message) from error

    def _too_many(self) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.counts.most_common())
        example = next(iter(self._known.values()))
        where = f" (all of them are listed in {self.path})" if self.path else ""
        return (
            f"{self._num_bad} of the first {self._num_seen} samples cannot be used, more than data.max_bad_rate = "
            f"{self.max_rate:g} allows: {kinds}; the first is {example.key} in {example.shard}: "
            f"{example.reason}{where}; mend the data or raise data.max_bad_rate."
        )
