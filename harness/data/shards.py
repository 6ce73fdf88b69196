"""Webdataset shards: tar files whose members share a key, such as 0001.jpg and 0001.txt."""

import hashlib
import json
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from webdataset.tariterators import base_plus_ext, group_by_keys, tar_file_expander

from harness.data.entries import is_remote
from harness.data.remote import failure, open_shard
from harness.data.samples import RawSample, SkippedSample
from harness.errors import UserError
from harness.files import read_json

IMAGE_ENDINGS = ("jpg", "jpeg", "png", "webp")

SIZES = "sizes.json"  # of this name and form open_clip's trainer reads how many samples each shard has

STATS = "_stats.json"  # of img2dataset, after the shard's name

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

    @property
    def is_remote(self) -> bool:
        """Whether any shard is an address or a command."""
        return any(map(is_remote, self.shards))

    def read(self, order: Iterable[int], on_broken: OnBroken) -> Iterator[RawSample]:
        """Yield the pairs of the shards with these numbers, of a shard that breaks off those before the break.

        Such a shard is handed to `on_broken`.
        """
        for number in order:
            yield from self._read_one(self.shards[number], on_broken)

    def _read_one(self, shard: str, on_broken: OnBroken) -> Iterator[RawSample]:
        errors: list[Exception] = []

        def on_error(error: Exception) -> bool:
            errors.append(error)
            return True  # for webdataset: go on

        try:
            stream = open_shard(shard)
        except Exception as error:  # what the opener of an address raises, an OSError for a file
            on_broken(SkippedSample("", shard, "broken_shard", _reason(error)))
            return
        last: RawSample | None = None
        files = tar_file_expander(iter([{"url": shard, "stream": stream}]), handler=on_error)
        for members in group_by_keys(files, handler=on_error):
            if last is not None:
                yield last
            last = _pair(members, shard)
        ended = failure(shard, stream, whole=not errors)
        reason = ended or (_reason(errors[0]) if errors else _cut_short(shard))
        # The break may have cut members off the last sample.
        if last is not None and (not reason or (last.image is not None and last.caption is not None)):
            yield last
        if reason:
            on_broken(SkippedSample("", shard, "broken_shard", reason))

    def count(self, at_most: int, on_broken: OnBroken) -> int:
        """Return the number of images, reading no further than `at_most`; only the tar headers of files are read."""
        found = 0
        for shard in self.shards:
            for name in _member_names(shard, on_broken):
                _, ending = base_plus_ext(name)
                found += ending is not None and ending.lower() in IMAGE_ENDINGS
                if found >= at_most:
                    return found
        return found

    def pairs(self) -> list[int | None]:
        """Return how many pairs each shard holds, None where no file beside it says so.

        That is the folder's sizes.json (see `clipkd data convert`), and for a shard which that does not list,
        img2dataset's own NAME_stats.json.
        """
        folders = {str(Path(shard).parent) for shard in self.shards if not is_remote(shard)}
        files = {folder: Path(folder, SIZES) for folder in folders}
        sizes = {folder: read_json(file) if file.is_file() else {} for folder, file in files.items()}
        found = [sizes.get(str(Path(shard).parent), {}).get(Path(shard).name) for shard in self.shards]
        return [_successes(shard) if pairs is None else pairs for shard, pairs in zip(self.shards, found, strict=True)]

    def fingerprint(self) -> str:
        """Return a text that differs where the names of the shards do; their folder may move."""
        names = [self.sizes, *(PurePosixPath(shard).name for shard in self.shards)]
        return hashlib.blake2b(json.dumps(names).encode(), digest_size=16).hexdigest()


def _successes(shard: str) -> int | None:
    """Return what img2dataset wrote down when it had finished a shard."""
    file = Path(shard).with_name(f"{Path(shard).stem}{STATS}")
    if is_remote(shard) or not file.is_file():
        return None
    try:
        return int(read_json(file)["successes"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{file} is not what img2dataset writes, JSON with the number of successes; delete it, or download the "
            "shard again"
        ) from error


def _member_names(shard: str, on_broken: OnBroken) -> Iterator[str]:
    reason = ""
    try:
        with tarfile.open(shard) as archive:
            for member in archive:
                yield member.name
    except Exception as error:  # TarError, OSError, and what a broken compression raises: EOFError, zlib.error, ...
        reason = _reason(error)
    if reason := reason or _cut_short(shard):
        on_broken(SkippedSample("", shard, "broken_shard", reason))


def _cut_short(shard: str) -> str:
    """Return the reason if a tar ends inside a block: tarfile takes a header cut short for the archive's end."""
    if is_remote(shard) or not shard.endswith(".tar") or Path(shard).stat().st_size % tarfile.BLOCKSIZE == 0:
        return ""
    return "the file ends inside a block, as after an unfinished download"


def _reason(error: Exception) -> str:
    """Return the error's name and the first line of its message, which is all that is about the shard's content."""
    # webdataset appends the stream to the message, and the stream and the shard to the arguments; tarfile adds a line
    # for each compression that it tried.
    text = getattr(error, "strerror", None) or str(next(iter(error.args), error))
    first_line = text.split("\n")[0].split(" @ <")[0]
    return f"{type(error).__name__}: {first_line.rstrip(':')}"


def _pair(members: dict[str, Any], shard: str) -> RawSample:
    image = next((members[ending] for ending in IMAGE_ENDINGS if ending in members), None)
    caption = members["txt"] if "txt" in members else _caption_in_json(members.get("json"))
    return RawSample(members["__key__"], shard, image, caption)


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
