"""Webdataset shards: tar files whose members share a key, such as 0001.jpg and 0001.txt."""

import json
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from webdataset.tariterators import base_plus_ext, tarfile_samples

from harness.data.bad import broken_shard
from harness.data.samples import BadSample, RawSample

IMAGE_ENDINGS = ("jpg", "jpeg", "png", "webp")


class ShardSource:
    """Pairs in webdataset shards, read one shard after another."""

    def __init__(self, shards: Sequence[Path]) -> None:
        self.shards = list(shards)

    def read(self, order: Iterable[int], on_broken: Callable[[BadSample], None]) -> Iterator[RawSample]:
        """Yield the pairs of the shards with these numbers.

        A shard that breaks off is handed to `on_broken`, as a BadSample because a worker process cannot raise a clean
        UserError: what it raises arrives with its traceback as the message.
        """
        for number in order:
            shard = str(self.shards[number])
            errors: list[Exception] = []

            def note(error: Exception, errors: list[Exception] = errors) -> bool:
                errors.append(error)
                return True  # for webdataset: go on

            yield from map(_pair, tarfile_samples(iter([{"url": shard}]), handler=note))
            reason = _reason(errors[0]) if errors else _cut_short(self.shards[number])
            if reason:
                on_broken(BadSample("", shard, "broken_shard", reason))

    def count(self, at_most: int) -> int:
        """Return the number of images, reading no further than `at_most`; only the tar headers are read.

        Raises:
            UserError: a shard among those read is broken.
        """
        found = 0
        for shard in self.shards:
            for name in _member_names(shard):
                _, ending = base_plus_ext(name)
                found += ending is not None and ending.lower() in IMAGE_ENDINGS
                if found >= at_most:
                    return found
        return found


def _member_names(shard: Path) -> Iterator[str]:
    try:
        with tarfile.open(shard) as archive:
            for member in archive:
                yield member.name
    except Exception as error:  # TarError, OSError, and what a broken compression raises: EOFError, zlib.error, ...
        raise broken_shard(str(shard), _reason(error)) from error
    if reason := _cut_short(shard):
        raise broken_shard(str(shard), reason)


def _cut_short(shard: Path) -> str:
    """Return the reason if a tar ends inside a block: tarfile takes a header cut short for the archive's end."""
    whole = shard.suffix != ".tar" or shard.stat().st_size % tarfile.BLOCKSIZE == 0
    return "" if whole else "the file ends inside a block, as after an unfinished download"


def _reason(error: Exception) -> str:
    """Return the error's name and the first line of its message, which is all that is about the shard's content."""
    # webdataset appends the stream to the message, and the stream and the shard to the arguments; tarfile adds a line
    # for each compression that it tried.
    text = error.strerror if isinstance(error, OSError) else str(next(iter(error.args), ""))
    first_line = (text or str(error)).split("\n")[0].split(" @ <")[0]
    return f"{type(error).__name__}: {first_line.rstrip(':')}"


def _pair(members: dict[str, Any]) -> RawSample:
    image = next((members[ending] for ending in IMAGE_ENDINGS if ending in members), None)
    caption = members["txt"] if "txt" in members else _caption_in_json(members.get("json"))
    return RawSample(members["__key__"], members["__url__"], image, caption)


def _caption_in_json(content: bytes | None) -> bytes | str | None:
    """Return the "caption" of a sample's JSON as img2dataset writes it; undecodable bytes are returned as they are."""
    if content is None:
        return None
    try:
        fields = json.loads(content)
    except UnicodeDecodeError:
        return content
    except ValueError:
        return None
    caption = fields.get("caption") if isinstance(fields, dict) else None
    return caption if isinstance(caption, str) else None
