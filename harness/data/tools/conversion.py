"""The two directions of a conversion: what is done with a unit, and how the units are joined."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from harness.config import DataConfig
from harness.data.shard_sizes import SIZES
from harness.data.tools.output_folder import OutputFolder, Record
from harness.data.tools.pool import Work
from harness.data.tools.sample_probe import SampleProbe
from harness.data.tools.to_csv import csv_writer, write_folder
from harness.data.tools.to_shards import write_shard
from harness.data.tools.units import WorkUnit
from harness.files import named, write_json

Joined = tuple[str, list[str]]  # in words what there is now, and the files that a finished conversion must have


class Conversion(Protocol):
    """What differs between the two directions."""

    @property
    def to(self) -> str:
        """What is written: shards or CSV."""

    def options(self) -> dict[str, Any]:
        """Return the options that decide on what is written, by the names that a user types."""

    def work(self, folder: OutputFolder) -> Work[WorkUnit, Record]:
        """Return what is done with each unit."""

    def join(self, folder: OutputFolder, records: Mapping[str, Record]) -> Joined:
        """Write what is about all units, given their records by file, in order."""


@dataclass(frozen=True)
class ToShards:
    """CSV files to shards."""

    cfg: DataConfig
    probe: SampleProbe
    samples_per_shard: int
    to: str = "shards"

    def options(self) -> dict[str, Any]:
        """Return what decides on names and contents of the shards."""
        return {**_shared(self.cfg, self.probe), "--root": self.cfg.root, "--samples-per-shard": self.samples_per_shard}

    def work(self, folder: OutputFolder) -> Work[WorkUnit, Record]:
        """Return what writes one shard."""
        return partial(write_shard, folder=folder, probe=self.probe)

    def join(self, folder: OutputFolder, records: Mapping[str, Record]) -> Joined:
        """Write the number of samples in each shard."""
        sizes = {file: record.samples for file, record in records.items() if record.samples}
        write_json(folder.out / SIZES, sizes)
        return f"{len(sizes):,} shards, {SIZES} with the number in each", list(sizes)


@dataclass(frozen=True)
class ToCsv:
    """Shards to a CSV file and a folder of images."""

    cfg: DataConfig
    probe: SampleProbe
    to: str = "csv"

    @property
    def separator(self) -> str:
        """The column separator to write with."""
        return {"auto": ",", "\\t": "\t"}.get(self.cfg.csv_separator, self.cfg.csv_separator)

    def options(self) -> dict[str, Any]:
        """Return what decides on the contents of the CSV."""
        return _shared(self.cfg, self.probe)

    def work(self, folder: OutputFolder) -> Work[WorkUnit, Record]:
        """Return what writes one shard's images and rows."""
        (folder.out / "images").mkdir(exist_ok=True)
        return partial(write_folder, folder=folder, probe=self.probe, separator=self.separator)

    def join(self, folder: OutputFolder, records: Mapping[str, Record]) -> Joined:
        """Write the CSV: a header, and the rows of all shards."""
        target = folder.out / ("pairs.tsv" if self.separator == "\t" else "pairs.csv")
        temporary = folder.work / f"{target.name}.tmp"
        with named(target), temporary.open("w", encoding="utf-8", newline="") as file:
            header = (self.cfg.csv_image_key, self.cfg.csv_caption_key, "key", "shard")
            csv_writer(file, self.separator).writerow(header)
            for part in records:
                with (folder.out / part).open(encoding="utf-8", newline="") as rows:
                    shutil.copyfileobj(rows, file)
        temporary.replace(target)
        return f"{target.name} and the folder images", [target.name]


def _shared(cfg: DataConfig, probe: SampleProbe) -> dict[str, Any]:
    keys = {"--image-key": cfg.csv_image_key, "--caption-key": cfg.csv_caption_key, "--separator": cfg.csv_separator}
    limits = {"--max-image-pixels": probe.max_pixels, "--image-formats": ",".join(cfg.image_formats)}
    return {**keys, "--fast": probe.fast, **limits}
