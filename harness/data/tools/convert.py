"""CSV files and their images to webdataset shards, and shards to a CSV file and its images."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from harness.config import DataConfig
from harness.data.csv_files import CsvSource
from harness.data.samples import SkippedSample
from harness.data.tools.conversion import Conversion, ToCsv, ToShards
from harness.data.tools.display import WorkDisplay
from harness.data.tools.output_folder import OutputFolder, Record
from harness.data.tools.plan import Plan, identify
from harness.data.tools.pool import run_ordered
from harness.data.tools.sample_probe import SampleProbe
from harness.data.tools.skipped_list import skipped_list
from harness.data.tools.units import WorkUnits
from harness.errors import UserError

SKIPPED = "skipped_samples.jsonl"


@dataclass(frozen=True)
class Summary:
    """What a finished conversion holds.

    Attributes:
        samples: how many were written.
        shards: how many shards they were written to or read from.
        contents: in words, the files that hold them.
        skipped: how many samples were left out, by kind; `first_skipped` is one of them.
    """

    samples: int
    shards: int
    contents: str
    skipped: dict[str, int]
    first_skipped: dict[str, str] | None


def convert(
    cfg: DataConfig, out: Path, *, workers: int, fast: bool = False, samples_per_shard: int = 10_000
) -> Summary:
    """Write shards for CSV files, or a CSV file and its images for shards, into a new folder.

    What a killed conversion has finished is kept: the same call goes on with the rest, and the result has the same
    bytes as if nothing had happened.

    Args:
        cfg: what to read, as in a recipe; of shards, its separator and keys say how the CSV is written.
        out: a new or empty folder, or the one where this very conversion was begun.
        workers: processes that read and write; 0 for this one alone.
        fast: read no more of an image than its header when looking for unusable samples.
        samples_per_shard: rows of a CSV that go into a shard, those of unusable samples included.

    Raises:
        UserError: there is nothing to read, `out` holds something else, or a worker was killed.
    """
    units = WorkUnits(cfg, samples_per_shard)
    if len(units) == 0:
        raise UserError("data.train lists no pairs, there is nothing to convert; give other files.")
    to_shards = isinstance(units.source, CsvSource)
    probe = SampleProbe(cfg.max_image_pixels, fast, cfg.image_formats)
    conversion: Conversion = ToShards(cfg, probe, samples_per_shard) if to_shards else ToCsv(cfg, probe)
    folder, plan = OutputFolder(out, len(units)), Plan(conversion.to, conversion.options(), identify(units.files))
    with folder.begun(plan) as complete:
        if complete is not None:
            return Summary(**complete)
        _work(units, folder, conversion, workers)
        return _finish(folder, conversion, plan)


def _work(units: WorkUnits, folder: OutputFolder, conversion: Conversion, workers: int) -> None:
    """Do the units that are not done."""
    records = [folder.load(number) for number in range(len(units))]
    missing = [number for number, record in enumerate(records) if record is None]
    kept = [record for record in records if record is not None]
    done = len(kept), sum(record.samples + len(record.skipped) for record in kept)
    display = WorkDisplay("converting", "shards", len(units), units.num_samples, done=done)
    tasks = (units[number] for number in missing)
    with display, closing(run_ordered(conversion.work(folder), tasks, workers=workers, watch=display.watch)) as results:
        for _ in results:
            display.unit_done()


def _finish(folder: OutputFolder, conversion: Conversion, plan: Plan) -> Summary:
    """Join what the units left, and mark the folder as complete."""
    counts: Counter[str] = Counter()
    records: dict[str, Record] = {}
    first = None
    with skipped_list(folder.out / SKIPPED) as write:
        for number in range(folder.num_units):
            record = folder.load(number)
            assert record is not None, "every unit has just been done"
            skipped = [SkippedSample(**cast(Any, sample)) for sample in record.skipped]  # as `Record.of` wrote them
            write(skipped)
            first = first or (record.skipped[0] if skipped else None)
            counts.update(sample.kind for sample in skipped)
            records[record.file] = record
    contents, files = conversion.join(folder, records)
    total = sum(record.samples for record in records.values())
    summary = Summary(total, len(records), contents, dict(counts.most_common()), first)
    folder.finish(plan, asdict(summary), files)
    return summary
