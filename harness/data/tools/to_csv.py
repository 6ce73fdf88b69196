"""One webdataset shard into a folder of images and rows of a CSV file."""

from __future__ import annotations

import csv
import os
import shutil
from pathlib import Path
from typing import Any

from harness.data.samples import RawSample, SkippedSample
from harness.data.tools.output_folder import OutputFolder, Record
from harness.data.tools.pool import Tick
from harness.data.tools.sample_probe import SampleProbe
from harness.data.tools.units import WorkUnit, file_name
from harness.files import named
from harness.images import open_image

_PER_FOLDER = 1000


def csv_writer(file: Any, separator: str) -> Any:
    """Return a writer that quotes every field: a caption may hold the separator, quotes, and any kind of line end."""
    return csv.writer(file, dialect="unix", delimiter=separator)


def write_folder(unit: WorkUnit, tick: Tick, *, folder: OutputFolder, probe: SampleProbe, separator: str) -> Record:
    """Write a unit's images under images/NAME, its rows for the CSV, and its record."""
    name = folder.name(unit.number)
    aside, images = folder.work / f"{name}.images.{os.getpid()}.tmp", Path("images") / name
    rows = folder.work / f"{name}.csv"
    skipped: list[SkippedSample] = []
    count = 0
    aside.mkdir()
    with named(rows), rows.open("w", encoding="utf-8", newline="") as file:
        writer = csv_writer(file, separator)
        for raw in unit.read(skipped.append):
            sample = _usable(raw, probe)
            if isinstance(sample, SkippedSample):
                skipped.append(sample)
            else:
                ending, caption = sample
                assert isinstance(raw.image, bytes)  # of a shard
                path = f"{count // _PER_FOLDER:03d}/{count:06d}.{ending}"
                _write(aside / path, raw.image)
                writer.writerow([str(images / path), caption, raw.key, file_name(raw.shard)])
                count += 1
            tick()
    shutil.rmtree(folder.out / images, ignore_errors=True)  # from a run killed just before it wrote its record
    aside.rename(folder.out / images)
    record = Record.of(count, str(rows.relative_to(folder.out)), rows.stat().st_size, skipped)
    folder.save(unit.number, record)
    return record


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    with named(path):
        path.write_bytes(content)


def _usable(raw: RawSample, probe: SampleProbe) -> tuple[str, str] | SkippedSample:
    """Return the ending for the image's file and the caption, exactly as the shard has it."""
    info = probe(raw)
    if isinstance(info, SkippedSample):
        return info
    assert isinstance(raw.image, bytes) and raw.caption is not None  # of a shard, and usable
    caption = raw.caption.decode() if isinstance(raw.caption, bytes) else raw.caption
    # Python's reader refuses a longer field and, before 3.11, a NUL; with it the whole CSV.
    if len(caption) > csv.field_size_limit() or "\0" in caption:
        reason = f"{len(caption):,} characters, or a NUL among them, which a CSV cannot hold"
        return SkippedSample(raw.key, raw.shard, "unstorable_caption", reason)
    kind = str(open_image(raw.image, probe.formats).format).lower()
    return {"jpeg": "jpg", "mpo": "jpg"}.get(kind, kind), caption
