"""Read a whole data set before training does, and add up what is wrong with it."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from harness.config import DataConfig
from harness.data.samples import SkippedSample
from harness.data.shards import ShardSource
from harness.data.tools.dataset_stats import DatasetStats, ShardStats
from harness.data.tools.display import WorkDisplay
from harness.data.tools.duplicates import Duplicates, find_duplicates, fingerprint
from harness.data.tools.gaps import Gaps, find_gaps
from harness.data.tools.pool import Tick, run_ordered
from harness.data.tools.sample_probe import SampleProbe
from harness.data.tools.skipped_list import skipped_list
from harness.data.tools.units import WorkUnit, WorkUnits

ROWS = 1000  # rows of a CSV that a worker takes at a time


@dataclass(frozen=True)
class Scan:
    """What came of one unit; `prints` and `shards` are its samples' fingerprints, uint64 [n]."""

    stats: DatasetStats
    skipped: list[SkippedSample]
    prints: np.ndarray
    shards: np.ndarray


@dataclass
class CheckReport:
    """What came of all of them.

    Attributes:
        units: the data set, of which the first `num_units` units were read: all, unless the scan was interrupted.
        interrupted: whether it was.
        stats: counts and measures.
        duplicates: keys that occur again.
        repeated: for an example inside a shard and one between shards, the key and where it occurs, twice.
        gaps: missing shard numbers.
        sizes: shards that were read to their end, but hold another number of samples than is written beside them: that
            number, and what is written.
        lost: samples behind the breaks of broken shards, about; None where nothing tells how many.
    """

    units: WorkUnits
    stats: DatasetStats
    num_units: int = 0
    interrupted: bool = False
    duplicates: Duplicates | None = None
    repeated: list[tuple[str, str, str]] = field(default_factory=list)
    gaps: list[Gaps] = field(default_factory=list)
    sizes: list[tuple[str, int, int]] = field(default_factory=list)
    lost: int | None = 0


def scan(unit: WorkUnit, tick: Tick, *, probe: SampleProbe) -> Scan:
    """Look at every sample of a unit."""
    stats = DatasetStats()
    skipped: list[SkippedSample] = []
    prints, shards = [], []
    if unit.shard is not None:
        stats.shards[str(unit.shard)] = ShardStats()  # an empty one is met too
    for raw in unit.read(skipped.append):
        prints.append(fingerprint(raw.key))
        shards.append(fingerprint(raw.shard))
        info = probe(raw)
        if isinstance(info, SkippedSample):
            skipped.append(info)
        else:
            stats.add_usable(raw.shard, info)
        tick()
    for sample in skipped:
        stats.add_skipped(sample)
    return Scan(stats, skipped, np.array(prints, np.uint64), np.array(shards, np.uint64))


def check(cfg: DataConfig, *, workers: int, fast: bool = False, out: Path | None = None) -> CheckReport:
    """Look at every sample of a data set.

    Ctrl-C ends the scan early: the report is then about what was read until then.

    Args:
        cfg: what to read, as in a recipe.
        workers: processes that read and decode; 0 for this one alone.
        fast: read no more of an image than its header.
        out: file for the list of skipped samples; None for no list.

    Raises:
        UserError: nothing is there to read, or a worker was killed.
    """
    units = WorkUnits(cfg, ROWS)
    report = CheckReport(units, DatasetStats())
    written = _written(units)
    keys: list[tuple[np.ndarray, np.ndarray]] = []
    name = "shards" if units.num_samples is None else "blocks"
    display = WorkDisplay("checking", name, len(units), units.num_samples)
    probe = SampleProbe(cfg.max_image_pixels, fast, cfg.image_formats)
    results = run_ordered(partial(scan, probe=probe), units, workers=workers, watch=display.watch)
    with skipped_list(out) as write:
        try:
            with display, closing(results):
                for one in results:
                    report.stats.merge(one.stats)
                    write(one.skipped)
                    keys.append((one.prints, one.shards))
                    display.unit_done()
        except KeyboardInterrupt:
            report.interrupted = True
    report.num_units = len(keys)
    report.gaps = find_gaps(units.files) if units.num_samples is None else []
    _compare_keys(report, keys)
    _compare_sizes(report, written)
    return report


def _written(units: WorkUnits) -> dict[str, int]:
    """Return how many samples shards hold, where something beside them says so."""
    if not isinstance(units.source, ShardSource):
        return {}
    sizes = zip(units.source.shards, units.source.pairs(), strict=True)
    return {shard: size for shard, size in sizes if size is not None}


def _compare_sizes(report: CheckReport, written: dict[str, int]) -> None:
    shards = report.stats.shards
    whole = {name: shard.num_read for name, shard in shards.items() if "broken_shard" not in shard.skipped}
    report.sizes = [(name, found, written[name]) for name, found in whole.items() if written.get(name, found) != found]
    broken = [name for name in shards if name not in whole]
    # Where nothing is written, a shard held about as many as the others do.
    usual = round(sum(whole.values()) / len(whole)) if whole else None
    expected = [written.get(name, usual) for name in broken]
    known = [
        max(0, size - shards[name].num_read) for name, size in zip(broken, expected, strict=True) if size is not None
    ]
    report.lost = sum(known) if len(known) == len(broken) else None


def _compare_keys(report: CheckReport, keys: list[tuple[np.ndarray, np.ndarray]]) -> None:
    if not keys:
        return
    prints, shards = map(np.concatenate, zip(*keys, strict=True))
    report.duplicates = find_duplicates(prints, shards)
    ends = np.cumsum([len(prints) for prints, _ in keys])
    for example in filter(None, report.duplicates.first):
        (key, first), (_, second) = (_sample_at(report.units, ends, place) for place in example)
        report.repeated.append((key, first, second))


def _sample_at(units: WorkUnits, ends: np.ndarray, place: int) -> tuple[str, str]:
    """Return key and shard of a sample by its place in the data: names are read again, not kept for millions."""
    number = int(np.searchsorted(ends, place, side="right"))
    begin = int(ends[number - 1]) if number else 0
    raw = next(islice(units[number].read(lambda broken: None), place - begin, None))
    return raw.key, raw.shard
