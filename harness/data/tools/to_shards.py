"""Rows of CSV files into one webdataset shard."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

from webdataset.writer import TarWriter

from harness.data.regular_files import read_regular
from harness.data.samples import RawSample, SkippedSample, Unusable
from harness.data.tools.output_folder import OutputFolder, Record
from harness.data.tools.pool import Tick
from harness.data.tools.sample_probe import SampleProbe
from harness.data.tools.units import WorkUnit, file_name
from harness.files import named
from harness.images import open_image

# By PIL's name of the format; an MPO, as phones write it, begins with a whole JPEG.
_ENDINGS = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp"}


def write_shard(unit: WorkUnit, tick: Tick, *, folder: OutputFolder, probe: SampleProbe) -> Record:
    """Write a unit's usable rows into its shard, and its record.

    Time, owner and mode of the members are fixed: the same rows make the same bytes. A shard without any usable row
    is not written, which leaves a gap in the numbers as img2dataset does.
    """
    name = f"{folder.name(unit.number)}.tar"
    temporary = folder.work / f"{name}.{os.getpid()}.tmp"
    skipped: list[SkippedSample] = []
    count = 0
    with named(temporary), temporary.open("wb") as file:
        with TarWriter(file, encoder=False, mtime=0, user="", group="", mode=0o644) as shard:
            for index, (row, raw) in enumerate(unit.rows, unit.start):
                sample = _members(raw, f"{index:09d}", row, probe)
                if isinstance(sample, SkippedSample):
                    skipped.append(sample)
                else:
                    shard.write(sample)
                    count += 1
                tick()
        file.flush()
        os.fsync(file.fileno())
    size = temporary.stat().st_size
    if count:
        temporary.replace(folder.out / name)
    else:
        temporary.unlink()
    record = Record.of(count, name, size, skipped)
    folder.save(unit.number, record)
    return record


def _members(raw: RawSample, key: str, row: int, probe: SampleProbe) -> dict[str, bytes | str] | SkippedSample:
    """Return a sample's members by ending: the image's bytes as they are, the caption, and where both are from."""
    if isinstance(raw.image, Path):
        try:
            raw = replace(raw, image=read_regular(raw.image))
        except Unusable as problem:
            return SkippedSample(raw.key, raw.shard, problem.kind, problem.reason)
    info = probe(raw)
    if isinstance(info, SkippedSample):
        return info
    assert isinstance(raw.image, bytes) and isinstance(raw.caption, str)
    kind = str(open_image(raw.image, probe.formats).format)
    if kind not in _ENDINGS:
        reason = f"a {kind}; shards hold JPEG, PNG and WebP, and images are never re-encoded"
        return SkippedSample(raw.key, raw.shard, "unstorable_image", reason)
    about = {
        "caption": raw.caption, "key": key, "width": info.width, "height": info.height,
        "filepath": raw.key, "csv": file_name(raw.shard), "row": row,
    }  # fmt: skip
    return {
        "__key__": key,
        _ENDINGS[kind]: raw.image,
        "txt": raw.caption.encode(),
        "json": json.dumps(about, ensure_ascii=False).encode(),
    }
