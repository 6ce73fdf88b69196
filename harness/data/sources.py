"""From the recipe's `data.train` to a source of pairs."""

import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from harness.config import DataConfig
from harness.data.csv_files import CsvSource
from harness.data.paths import expand_shards
from harness.data.samples import RawSample
from harness.data.shards import ShardSource
from harness.data.synthetic import SyntheticSource
from harness.errors import UserError

_CSV_ENDINGS = (".csv", ".tsv")
_SYNTHETIC = "synthetic:"


class IndexedSource(Protocol):
    """Pairs that can be read in any order."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> RawSample: ...


def open_source(cfg: DataConfig, *, image_size: int, seed: int) -> IndexedSource | ShardSource:
    """Open the training pairs, checking that every file is there.

    Raises:
        UserError: a file or column is missing, a file is of no known kind, or the entries are of different kinds.
    """
    kinds = {_kind(entry) for entry in cfg.train}
    if len(kinds) > 1:
        raise UserError(f"data.train mixes {' and '.join(sorted(kinds))}: {', '.join(cfg.train)}; use one kind.")
    if kinds == {"CSV files"}:
        return CsvSource(
            [Path(entry) for entry in cfg.train],
            root=cfg.root,
            separator=cfg.csv_separator,
            image_key=cfg.csv_image_key,
            caption_key=cfg.csv_caption_key,
        )
    if kinds == {"synthetic pairs"}:
        return SyntheticSource(sum(map(_synthetic_count, cfg.train)), image_size, seed)
    for entry in cfg.train:
        _check_kind(Path(entry))
    return ShardSource([shard for pattern in cfg.train for shard in expand_shards(pattern)])


def _kind(entry: str) -> str:
    if entry.startswith(_SYNTHETIC):
        return "synthetic pairs"
    return "CSV files" if Path(entry).suffix.lower() in _CSV_ENDINGS else "webdataset shards"


def _check_kind(path: Path) -> None:
    """Refuse a single file that is no tar; folders and patterns are left to the reading of their shards."""
    if not path.is_file():
        return
    if path.stat().st_size == 0:
        raise UserError(f"data.train: {path} is empty, it has zero bytes; build or download it again.")
    try:
        is_tar = tarfile.is_tarfile(path)
    except (OSError, EOFError):
        return  # a file that cannot be read is told with its reason when its shard is
    if not is_tar:
        raise UserError(
            f"data.train: {path} is neither a .tar shard nor a .csv/.tsv file; give a file of one of these kinds, and "
            "let the name of a list of pairs end in .csv or .tsv."
        )


def _synthetic_count(entry: str) -> int:
    text = entry.removeprefix(_SYNTHETIC)
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise UserError(
            f"data.train: {entry} should be synthetic:N with a whole number N above 0, as in synthetic:512."
        )
    return int(text)


def describe(sources: Sequence[str]) -> str:
    """Return the entries of `data.train` as a user wrote them, the long list cut."""
    return ", ".join(sources[:3]) + (f" and {len(sources) - 3} more" if len(sources) > 3 else "")
