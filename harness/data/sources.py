"""From the recipe's `data.train` to a source of pairs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from harness.config import DataConfig
from harness.config.data import TrainSource
from harness.data.archive import NotAnArchive, open_archive
from harness.data.csv_files import CsvSource
from harness.data.entries import describe, entries, is_remote
from harness.data.order import EpochOrder, epoch_size
from harness.data.paths import expand_shards
from harness.data.regular_files import open_regular
from harness.data.samples import RawSample
from harness.data.shards import ShardSource
from harness.data.synthetic import SyntheticSource
from harness.errors import UserError

_CSV_ENDINGS = (".csv", ".tsv")
_SYNTHETIC = "synthetic:"


class IndexedSource(Protocol):
    """Pairs that can be read in any order; `sizes` says how many of them come from each entry of the recipe."""

    @property
    def sizes(self) -> Sequence[int]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> RawSample: ...

    def fingerprint(self) -> str: ...


@dataclass(frozen=True)
class Opened:
    """The training pairs of a recipe.

    Attributes:
        source: the pairs.
        epoch_order: the order of every epoch over the samples, or the shards.
        about: what a message says about them, beside their number.
    """

    source: IndexedSource | ShardSource
    epoch_order: EpochOrder
    about: str


def open_train(cfg: DataConfig, *, image_size: int, seed: int) -> Opened:
    """Open the training pairs, checking that every file is there.

    Raises:
        UserError: a file or column is missing, a file is of no known kind, or the entries are of different kinds.
    """
    found = entries(cfg)
    kinds = {_kind(entry.path) for entry in found}
    if len(kinds) > 1:
        raise UserError(f"data.train mixes {' and '.join(sorted(kinds))}: {describe(cfg)}; use one kind.")
    kind = kinds.pop()
    for entry in cfg.train:
        if kind != "CSV files" and isinstance(entry, TrainSource) and entry.root is not None:
            raise UserError(f"data.train: {entry.path} has a root, which only image paths in a CSV have; remove it.")
    about = describe(cfg)
    source: IndexedSource | ShardSource
    if kind == "webdataset shards":
        source, missing = _open_shards(found)
        about += f" ({missing} shards of a range are missing)" if missing else ""
    else:
        source = _open_csv(cfg, found) if kind == "CSV files" else _open_synthetic(found, image_size, seed)
    for entry, size in zip(found, source.sizes, strict=True):
        _check_weight(entry, size, "shards" if isinstance(source, ShardSource) else "samples")
    weights = tuple(entry.weight for entry in found)
    return Opened(source, EpochOrder(tuple(source.sizes), weights, seed), about)


def open_source(cfg: DataConfig, *, image_size: int, seed: int) -> IndexedSource | ShardSource:
    """Open the training pairs without their weights."""
    return open_train(cfg, image_size=image_size, seed=seed).source


def _open_csv(cfg: DataConfig, found: Sequence[TrainSource]) -> CsvSource:
    return CsvSource(
        [Path(entry.path) for entry in found],
        root=[entry.root for entry in found],
        separator=cfg.csv_separator,
        image_key=cfg.csv_image_key,
        caption_key=cfg.csv_caption_key,
    )


def _open_synthetic(found: Sequence[TrainSource], image_size: int, seed: int) -> SyntheticSource:
    return SyntheticSource([_synthetic_count(entry.path) for entry in found], image_size, seed)


def _open_shards(found: Sequence[TrainSource]) -> tuple[ShardSource, int]:
    """Return the shards of all entries, and how many more a range names."""
    for entry in found:
        _check_kind(entry.path)
    expanded = [expand_shards(entry.path) for entry in found]
    shards = [shard for names, _ in expanded for shard in names]
    return ShardSource(shards, [len(names) for names, _ in expanded]), sum(missing for _, missing in expanded)


def _kind(path: str) -> str:
    if path.startswith(_SYNTHETIC):
        return "synthetic pairs"
    is_list = not is_remote(path) and Path(path).suffix.lower() in _CSV_ENDINGS
    return "CSV files" if is_list else "webdataset shards"


def _check_weight(entry: TrainSource, size: int, what: str) -> None:
    if size and epoch_size(size, entry.weight) == 0:
        raise UserError(
            f"data.train: weight {entry.weight:g} leaves none of the {size} {what} of {entry.path} to an epoch; raise "
            f"it to {1 / size:.2g} or more, or split the data into more files."
        )


def _check_kind(entry: str) -> None:
    """Refuse a single file that is not a tar; folders and patterns are left to the reading of their shards."""
    path = Path(entry)
    if is_remote(entry) or not path.is_file():
        return
    if path.stat().st_size == 0:
        raise UserError(f"data.train: {path} is empty, it has zero bytes; build or download it again.")
    try:
        with open_regular(path) as file:
            open_archive(file)
    except NotAnArchive as error:
        raise UserError(
            f"data.train: {path} is neither a .tar shard nor a .csv/.tsv file; give a file of one of these kinds, and "
            f"let the name of a list of pairs end in .csv or .tsv ({str(error).removeprefix('ReadError: ')})."
        ) from error
    except Exception:
        return  # an unreadable file is reported, with the reason, when its shard is read


def _synthetic_count(entry: str) -> int:
    text = entry.removeprefix(_SYNTHETIC)
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise UserError(
            f"data.train: {entry} should be synthetic:N with a whole number N above 0, as in synthetic:512."
        )
    return int(text)
