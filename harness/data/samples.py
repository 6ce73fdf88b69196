"""Samples as they are read, and what is wrong with those that cannot be used."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Kind = Literal[
    "missing_image", "empty_image", "truncated_image", "corrupt_image", "image_format", "wrong_mode",
    "decompression_bomb", "missing_caption", "empty_caption", "caption_not_utf8", "malformed_row", "not_cached",
    "broken_shard",
    "unstorable_image", "unstorable_caption",  # met by `clipkd data convert` alone
]  # fmt: skip


@dataclass(frozen=True)
class RawSample:
    """An undecoded pair: `image` is a file's bytes or its path, None if missing; `caption` likewise bytes or text.

    `fault` says why the row of a table that the pair is from cannot be used.
    """

    key: str
    shard: str
    image: bytes | Path | None
    caption: bytes | str | None
    fault: str | None = None


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
