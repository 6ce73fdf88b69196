"""Webdataset shards: tar files whose members share a key, such as 0001.jpg and 0001.txt."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path, PurePosixPath

from webdataset.tariterators import base_plus_ext

from harness.data.archive import BrokenArchive, NotAnArchive, open_archive
from harness.data.entries import is_remote
from harness.data.grouping import IMAGE_ENDINGS, Grouping
from harness.data.members import read_members
from harness.data.remote import close_file, failure, open_shard
from harness.data.samples import RawSample, SkippedSample
from harness.data.shard_sizes import SIZES, STATS, written_sizes

_LOOK_AT = 1000  # members of a shard, to tell which endings there are

OnBroken = Callable[[SkippedSample], None]


class ShardSource:
    """Pairs in webdataset shards, read one shard after another.

    Args:
        shards: paths, addresses or pipe: commands.
        sizes: how many of them each source holds, in order; default: all belong to one.

    Attributes:
        shards: as texts.
        sizes: as given.
    """

    def __init__(self, shards: Sequence[Path | str], sizes: Sequence[int] | None = None) -> None:
        self.shards = [str(shard) for shard in shards]
        self.sizes = [len(self.shards)] if sizes is None else list(sizes)
        self._written: list[int | None] | None = None

    @property
    def is_remote(self) -> bool:
        """Whether any shard is an address or a command."""
        return any(map(is_remote, self.shards))

    def read(self, order: Iterable[int], on_broken: OnBroken) -> Iterator[RawSample]:
        """Yield the pairs of the shards with these numbers, of a shard that breaks off those before the break.

        Such a shard is handed to `on_broken`, and what is to be remarked of others.
        """
        for number in order:
            yield from self._read_one(number, on_broken)

    def _read_one(self, number: int, on_broken: OnBroken) -> Iterator[RawSample]:
        shard = self.shards[number]
        try:
            stream = open_shard(shard)
        except Exception as error:  # what the opener of an address raises, an OSError for a file
            on_broken(SkippedSample("", shard, "broken_shard", _reason(error)))
            return
        grouping, count, problem = Grouping(shard), 0, None
        try:
            for member in read_members(open_archive(stream)):
                sample = grouping.add(member)
                if sample is not None:
                    count += 1
                    yield sample
        except MemoryError:
            raise
        except Exception as error:  # of the archive, OSError, and what a broken compression raises: EOFError, ...
            problem = error
        finally:
            close_file(stream)
        ended = failure(shard, stream, whole=problem is None)
        last = grouping.finish()
        # A break may have cut members off the last sample.
        if last is not None and (not (ended or problem) or _is_whole(last)):
            count += 1
            yield last
        if ended or problem:
            on_broken(SkippedSample("", shard, "broken_shard", ended or _reason(problem, count)))
        for remark in (*self._remarks(number, count, whole=not (ended or problem)), *grouping.remarks()):
            on_broken(remark)

    def _remarks(self, number: int, count: int, *, whole: bool) -> Iterator[SkippedSample]:
        """Yield what is to be said of the number of samples in a shard."""
        shard, written = self.shards[number], self._written[number] if self._written else None
        if whole and count == 0:
            yield SkippedSample("", shard, "empty_shard", "it is empty, without any sample")
        if whole and written is not None and written != count:
            files = f"{SIZES} or {Path(shard).stem}{STATS}"
            yield SkippedSample("", shard, "shard_size", f"it holds {count:,} samples, {files} says {written:,}")

    def count(self, at_most: int, on_broken: OnBroken) -> int:
        """Return the number of images, reading no further than `at_most`; only the tar headers of files are read."""
        found = 0
        for shard in self.shards:
            for ending in _endings(shard, on_broken):
                found += ending in IMAGE_ENDINGS
                if found >= at_most:
                    return found
        return found

    def endings(self) -> list[str]:
        """Return the endings of the members of the first shard that has any, the most frequent first."""
        for shard in self.shards:
            if counts := Counter(islice(_endings(shard, lambda broken: None), _LOOK_AT)):
                return [ending for ending, _ in counts.most_common()]
        return []

    def pairs(self) -> list[int | None]:
        """Return how many pairs each shard holds by the files beside it; `read` then tells where it holds others."""
        if self._written is None:
            self._written = written_sizes(self.shards)
        return self._written

    def fingerprint(self) -> str:
        """Return a text that differs where the names of the shards do; their folder may move."""
        names = [self.sizes, *(PurePosixPath(shard).name for shard in self.shards)]
        return hashlib.blake2b(json.dumps(names).encode(), digest_size=16).hexdigest()


def _endings(shard: str, on_broken: OnBroken) -> Iterator[str]:
    """Yield the endings of a shard's members, reading no more than their headers."""
    count = 0
    try:
        with closing(open_shard(shard)) as stream:
            for member in read_members(open_archive(stream), contents=False):
                _, ending = base_plus_ext(member.name)
                if ending is not None and member.content is not None:
                    count += ending.lower() in IMAGE_ENDINGS
                    yield ending.lower()
    except MemoryError:
        raise
    except Exception as error:  # as in reading
        on_broken(SkippedSample("", shard, "broken_shard", _reason(error, count)))


def _reason(error: Exception | None, count: int | None = None) -> str:
    """Return what is wrong with a shard, and how many of its samples were read before."""
    if isinstance(error, BrokenArchive):
        reason = str(error)
    else:
        text = getattr(error, "strerror", None) or str(next(iter(error.args), error) if error else "")
        reason = f"{type(error).__name__}: {text.split(chr(10))[0].rstrip(':')}"
    if count is None or isinstance(error, NotAnArchive):
        return reason
    return f"{reason}; {count:,} sample{' was' if count == 1 else 's were'} read before it"


def _is_whole(sample: RawSample) -> bool:
    return sample.image is not None and sample.caption is not None
