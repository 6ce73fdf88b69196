"""The files of `data.train`, each with what tells it apart from another, and where its cache is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.config import DataConfig, Recipe
from harness.data.csv_files import CsvSource
from harness.data.entries import entries, is_remote
from harness.data.paths import existing_file, expand_shards
from harness.data.shards import ShardSource
from harness.data.synthetic import SyntheticSource
from harness.errors import UserError
from harness.teachers.identity import digest, digest_ends, digest_file

FOLDER = "teacher_cache"
_SYNTHETIC = "synthetic:"
_CSV_ENDINGS = (".csv", ".tsv")


@dataclass(frozen=True)
class DataFile:
    """A shard, a CSV file, or all synthetic pairs.

    Attributes:
        shard: what its samples have as `RawSample.shard`.
        name: what its cache files are called after.
        home: the folder with the folders of caches.
        facts: what would differ if its content did, as far as that is known without reading all of it.
        root: of a CSV, where image paths start.
    """

    shard: str
    name: str
    home: Path
    facts: dict[str, Any]
    root: str | None = None

    @property
    def is_shard(self) -> bool:
        """Whether it can only be read from its begin to its end."""
        return "samples" not in self.facts and "columns" not in self.facts

    def open(self, cfg: DataConfig) -> CsvSource | ShardSource | SyntheticSource:
        """Return its samples."""
        if "samples" in self.facts:
            return SyntheticSource(self.facts["samples"], self.facts["image_size"], self.facts["seed"])
        if "columns" in self.facts:
            image, caption, separator = self.facts["columns"]
            return CsvSource(
                [Path(self.shard)], root=self.root, separator=separator, image_key=image, caption_key=caption
            )
        return ShardSource([self.shard])


def data_files(recipe: Recipe, image_size: int) -> list[DataFile]:
    """Return the files of the recipe's `data.train`, each once.

    Args:
        recipe: for `data`, `teacher_cache.path` and, for synthetic pairs, the seed.
        image_size: side of synthetic images.

    Raises:
        UserError: a file is missing, or nothing says where its cache should be.
    """
    found: dict[str, DataFile] = {}
    count = 0
    for entry in entries(recipe.data):
        if entry.path.startswith(_SYNTHETIC):
            count += _count(entry.path)
        elif entry.path.lower().endswith(_CSV_ENDINGS):
            found.setdefault(entry.path, _csv(recipe, Path(entry.path), entry.root))
        else:
            for shard in expand_shards(entry.path)[0]:
                found.setdefault(shard, _shard(recipe, shard))
    if count:
        found["synthetic"] = _synthetic(recipe, count, image_size)
    _check_names(list(found.values()))
    return list(found.values())


def _count(entry: str) -> int:
    text = entry.removeprefix(_SYNTHETIC)
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise UserError(f"data.train: {entry} should be synthetic:N with a whole number N above 0")
    return int(text)


def _synthetic(recipe: Recipe, count: int, image_size: int) -> DataFile:
    home = Path(recipe.teacher_cache.path or Path(recipe.paths.data_root) / FOLDER)
    facts = {"samples": count, "image_size": image_size, "seed": recipe.seed}
    return DataFile("synthetic", f"synthetic-{count}", home, facts)


def _csv(recipe: Recipe, path: Path, root: str | None) -> DataFile:
    cfg = recipe.data
    existing_file(path, "CSV file")
    columns = [cfg.csv_image_key, cfg.csv_caption_key, cfg.csv_separator]
    facts = {"bytes": path.stat().st_size, "sha256": digest_file(path), "columns": columns}
    return DataFile(str(path), *_place(recipe, path), facts, root)


def _shard(recipe: Recipe, shard: str) -> DataFile:
    if not is_remote(shard):
        path = Path(shard)
        try:
            facts = {"bytes": path.stat().st_size, "ends": digest_ends(path)}
        except OSError as error:
            raise UserError(
                f"data.train: {path} cannot be read: {error.strerror or error}; remove it, or list only good shards"
            ) from error
        return DataFile(shard, *_place(recipe, path), facts)
    if recipe.teacher_cache.path is None:
        raise UserError(
            f"data.train: nothing can be written beside the remote shard {shard}; say where the teacher's cache is "
            "with teacher_cache.path"
        )
    # A command may name its file anywhere; the digest keeps two of them apart.
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", shard.rsplit("/", 1)[-1])[:80]
    return DataFile(shard, f"{name}-{digest(shard)}", Path(recipe.teacher_cache.path), {})


def _place(recipe: Recipe, path: Path) -> tuple[str, Path]:
    """Return the name for cache files, and their home."""
    if recipe.teacher_cache.path is None:
        return path.name, path.parent / FOLDER
    # Folders of shards all have a 00000.tar.
    return f"{path.absolute().parent.name}.{path.name}", Path(recipe.teacher_cache.path)


def _check_names(files: list[DataFile]) -> None:
    seen: dict[tuple[Path, str], str] = {}
    for file in files:
        other = seen.setdefault((file.home, file.name), file.shard)
        if other != file.shard:
            raise UserError(
                f"teacher_cache.path {file.home} cannot tell {other} and {file.shard} apart, whose names "
                "and folders' names agree; leave it out, so that each cache is beside its data, or rename one"
            )
