"""Samples as they are read, and what is wrong with those that cannot be used."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Kind = Literal[
    "missing_image", "empty_image", "truncated_image", "corrupt_image", "image_format", "wrong_mode",
    "decompression_bomb", "missing_caption", "empty_caption", "caption_not_utf8", "malformed_row", "not_cached",
    "duplicate_member", "name_not_utf8",
    "broken_shard", "empty_shard", "unread_member", "shard_size",  # of shards, not of samples
    "unstorable_image", "unstorable_caption",  # met by `clipkd data convert` alone
]  # fmt: skip

# What is said of a shard, and takes no sample away.
REMARKS = frozenset(("empty_shard", "unread_member", "shard_size"))
OF_SHARDS = REMARKS | {"broken_shard"}


@dataclass(frozen=True)
class RawSample:
    """An undecoded pair: `image` is a file's bytes or its path, None if missing; `caption` likewise bytes or text.

    Attributes:
        key: what the pair is called in its file.
        shard: that file.
        image: as said.
        caption: as said.
        fault: why the row or the members that the pair is from cannot be used.
        fault_kind: of which kind that is.
        members: where image or caption are missing in a shard, what is there instead.
    """

    key: str
    shard: str
    image: bytes | Path | None
    caption: bytes | str | None
    fault: str | None = None
    fault_kind: Kind = "malformed_row"
    members: str | None = None


@dataclass(frozen=True)
class SkippedSample:
    """A sample that was skipped, and why; also one line of skipped_samples.jsonl."""

    key: str
    shard: str
    kind: Kind
    reason: str


class Unusable(Exception):
    """Raised inside decoding; it never leaves harness.data.decode."""

    def __init__(self, kind: Kind, reason: str) -> None:
        super().__init__(reason)
        self.kind: Kind = kind
        self.reason = reason
