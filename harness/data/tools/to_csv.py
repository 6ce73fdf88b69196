"""One webdataset shard into a folder of images and rows of a CSV file."""

from __future__ import annotations

import csv
import io
import os
import shutil
from pathlib import Path
from typing import Any

from PIL import Image

from harness.data.samples import BadSample, RawSample
from harness.data.tools.look import Look
from harness.data.tools.place import Place, Record
from harness.data.tools.pool import Tick
from harness.data.tools.units import Unit, file_name
from harness.files import named

_PER_FOLDER = 1000


def csv_writer(file: Any, separator: str) -> Any:
    """Return a writer that quotes every field: a caption may hold the separator, quotes, and any kind of line end."""
    return csv.writer(file, dialect="unix", delimiter=separator)


def write_folder(unit: Unit, tick: Tick, *, place: Place, look: Look, separator: str) -> Record:
    """Write a unit's images under images/NAME, its rows for the CSV, and its record."""
    name = place.name(unit.number)
    aside, images = place.work / f"{name}.images.{os.getpid()}.tmp", Path("images") / name
    rows = place.work / f"{name}.csv"
    bad: list[BadSample] = []
    count = 0
    aside.mkdir()
    with named(rows), rows.open("w", encoding="utf-8", newline="") as file:
        writer = csv_writer(file, separator)
        for raw in unit.read(bad.append):
            sample = _usable(raw, look)
            if isinstance(sample, BadSample):
                bad.append(sample)
            else:
                ending, caption = sample
                assert isinstance(raw.image, bytes)  # of a shard
                path = f"{count // _PER_FOLDER:03d}/{count:06d}.{ending}"
                _write(aside / path, raw.image)
                writer.writerow([str(images / path), caption, raw.key, file_name(raw.shard)])
                count += 1
            tick()
    shutil.rmtree(place.out / images, ignore_errors=True)  # from a run killed just before it wrote its record
    aside.rename(place.out / images)
    record = Record.of(count, str(rows.relative_to(place.out)), rows.stat().st_size, bad)
    place.save(unit.number, record)
    return record


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    with named(path):
        path.write_bytes(content)


def _usable(raw: RawSample, look: Look) -> tuple[str, str] | BadSample:
    """Return the ending for the image's file and the caption, exactly as the shard has it."""
    seen = look(raw)
    if isinstance(seen, BadSample):
        return seen
    assert isinstance(raw.image, bytes) and raw.caption is not None  # of a shard, and usable
    caption = raw.caption.decode() if isinstance(raw.caption, bytes) else raw.caption
    # Python's reader refuses a longer field and, before 3.11, a NUL; with it the whole CSV.
    if len(caption) > csv.field_size_limit() or "\0" in caption:
        reason = f"{len(caption):,} characters, or a NUL among them, which a CSV cannot hold"
        return BadSample(raw.key, raw.shard, "unstorable_caption", reason)
    kind = str(Image.open(io.BytesIO(raw.image)).format).lower()
    return {"jpeg": "jpg", "mpo": "jpg"}.get(kind, kind), caption
